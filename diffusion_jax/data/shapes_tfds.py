"""The shapes world as a prepared TFDS set, for tools that read those; TensorFlow isn't needed.

    python -m diffusion_jax.data.shapes_tfds --data-dir ~/tensorflow_datasets --config 32x32

Record i is `shapes(split, size)[i]`, except that the segmentation is [s, s, 1], as TFDS's pictures
have channels. `tfds_source("shapes/32x32", split, data_dir)` reads it.
"""

from __future__ import annotations

import io
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from diffusion_jax.data.shapes import SPLITS, shapes
from diffusion_jax.data.tfds_sets import quiet

with quiet():
    try:
        import tensorflow_datasets as tfds
    except ModuleNotFoundError as error:
        needed = "preparing shapes needs tensorflow-datasets: pip install tensorflow-datasets"
        if __name__ == "__main__":
            raise SystemExit(needed) from None
        raise ModuleNotFoundError(needed) from error

CONFIGS = {"16x16": 16, "32x32": 32, "64x64": 64}


# Not registered: the class is used by name, and a second import mustn't be an error.
class Shapes(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """Coloured cubes, balls and cones with captions, segmentations and boxes.

    Arguments besides a builder's own: how many records to train on and to test, and the seed.
    """

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS: ClassVar[list[Any]] = [
        tfds.core.BuilderConfig(name=name, description=f"pictures of {name} pixels")
        for name in CONFIGS
    ]
    # Nothing to download: else TFDS looks for checksums, by a package that it doesn't bring along.
    url_infos: ClassVar[dict[str, Any]] = {}

    def __init__(self, *, train: int, test: int, seed: int, **builder: Any):
        self._counts = {"train": train, "test": test}
        self._seed = seed
        super().__init__(file_format="array_record", **builder)

    def _info(self) -> tfds.core.DatasetInfo:
        size = CONFIGS[self.builder_config.name]
        return tfds.core.DatasetInfo(
            builder=self,
            description="A procedural world: record i is a pure function of (seed, split, i).",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(size, size, 3), encoding_format="png"),
                    "caption": tfds.features.Text(),
                    "segmentation": tfds.features.Image(
                        shape=(size, size, 1), encoding_format="png"
                    ),
                    "boxes": tfds.features.Tensor(shape=(3, 4), dtype=np.float32),
                    "box_label": tfds.features.Tensor(shape=(3,), dtype=np.int32),
                }
            ),
            disable_shuffling=True,  # record i stays record i
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        return {split: self._generate_examples(split) for split in SPLITS}

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict[str, Any]]]:
        size = CONFIGS[self.builder_config.name]
        source = shapes(split, size, self._counts[split], self._seed)
        for i in range(len(source)):
            record = source[i]
            # Encoded here, as TFDS would call TensorFlow to encode an array.
            pictures = {key: _png(record[key]) for key in ("image", "segmentation")}
            yield i, record | pictures


def prepare(
    data_dir: Path,
    config: Literal["16x16", "32x32", "64x64"] = "16x16",
    train: int = SPLITS["train"],
    test: int = SPLITS["test"],
    seed: int = 0,
) -> Path:
    """Write the shapes world as a TFDS set, and return the set's folder.

    Args:
      data_dir: the folder of prepared sets.
      config: the size of the pictures.
      train: how many records to train on.
      test: how many records to test.
      seed: which world.

    Raises:
      FileExistsError: the folder already holds this set.
      ValueError: a count below 1, or a negative seed.
    """
    for split, count in {"train": train, "test": test}.items():
        shapes(split, CONFIGS[config], count, seed)  # refuses before anything is written
    # TFDS wants a folder for downloads, of which there are none.
    with quiet(), tempfile.TemporaryDirectory() as downloads:
        folder = data_dir.expanduser()
        builder = Shapes(data_dir=folder, config=config, train=train, test=test, seed=seed)
        home = Path(builder.data_dir)
        if home.exists():
            raise FileExistsError(
                f"{home} is already prepared; remove it first to write it with other records"
            )
        builder.download_and_prepare(download_dir=downloads)
    return home


def _png(pixels: np.ndarray) -> io.BytesIO:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    file.seek(0)
    return file


def main() -> None:
    import tyro

    try:
        home = tyro.cli(prepare)
    except KeyboardInterrupt:
        print("interrupted.", file=sys.stderr)
        raise SystemExit(130) from None
    except (OSError, RuntimeError, ValueError) as error:  # of a full disk, a RuntimeError
        raise SystemExit(str(error)) from None
    with quiet():
        splits = tfds.builder_from_directory(home).info.splits
    counts = " and ".join(f"{part.num_examples:,} {name}" for name, part in splits.items())
    print(f"wrote {counts} records to {home}")


if __name__ == "__main__":
    main()
