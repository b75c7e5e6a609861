"""Data sets prepared by TensorFlow Datasets, read without TensorFlow and without the network."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from diffusion_jax.data.sources import Source
from diffusion_jax.data.views import in_memory


def tfds_source(
    name: str,
    split: str = "train",
    data_dir: str | os.PathLike[str] | None = None,
    *,
    label: str | None = None,
) -> Source:
    """A data set by name, from a folder of prepared sets: TFDS's own, or any in its layout.

    Args:
      name: "mnist", "imagenet_resized/64x64" (with its configuration), or "mnist:3.0.1" (with its
        version; else the newest).
      split: "train", "test", or any TFDS split such as "train[:90%]".
      data_dir: the folder; else $DIFFUSION_JAX_DATA, $TFDS_DATA_DIR, or ~/tensorflow_datasets.
      label: which class feature becomes `label`; else the one called "label", else the
        first by the alphabet.

    Returns:
      A source whose records hold every feature of the set, text as `str`. Where no feature is a
      class, `classes` is None and there is no `label`.

    Raises:
      FileNotFoundError: the set isn't in that folder; the message says how to prepare it and what
        is there.
      ValueError: an unknown split or label, a file format that needs TensorFlow, or images that
        have no fixed size.
      ModuleNotFoundError: tensorflow-datasets isn't installed.
    """
    with quiet():
        try:
            import tensorflow_datasets as tfds
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                f"data set {name!r} needs tensorflow-datasets: pip install tensorflow-datasets"
            ) from error
        builder = tfds.builder_from_directory(_locate(name, _folder(data_dir)))
        features = builder.info.features
        shape = _image_shape(name, features)
        # Sorted, because TFDS reads the features back in an order that differs from run to run.
        classes = {
            key: feature
            for key, feature in sorted(features.items())
            if isinstance(feature, tfds.features.ClassLabel)
        }
        label = _label(name, label, list(classes))
        try:
            records = builder.as_data_source(split)
        except ValueError as error:
            known = ", ".join(repr(key) for key in builder.info.splits)
            raise ValueError(
                f"{name} has no split {split!r}; its splits are {known}, "
                "and parts of them such as 'train[:90%]'"
            ) from error
        except NotImplementedError as error:
            raise ValueError(
                f"{name} in {builder.data_dir} is stored in a format that only TensorFlow reads; "
                f"prepare it again with `{_command(name, _folder(data_dir))}`"
            ) from error
        if len(records):
            # Decoding one record now says what is missing (a decoder, a shard) before any work, and
            # it spends TFDS's once-a-process advice about OpenCV here, where logging is off.
            records[0]
    return _TfdsSource(name, shape, classes[label].num_classes if label else None, label, records)


def tfds_in_memory(name: str, split: str, data_dir: str | os.PathLike[str] | None) -> Source:
    """`in_memory(tfds_source(name, split, data_dir))`, the source of a recipe on a small set."""
    return in_memory(tfds_source(name, split, data_dir))


@dataclass(frozen=True, eq=False)
class _TfdsSource:
    name: str
    image_shape: tuple[int, int, int]
    classes: int | None
    label: str | None
    records: Any = field(repr=False)

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, i: int) -> dict[str, Any]:
        record = {
            key: value.decode(errors="replace") if isinstance(value, bytes) else value
            for key, value in self.records[i].items()
        }
        if self.label is not None:
            record["label"] = int(record[self.label])
        return record


def _folder(data_dir: str | os.PathLike[str] | None) -> Any:
    from etils import epath  # comes with TFDS; a path that may also be a bucket

    chosen = data_dir or os.environ.get("DIFFUSION_JAX_DATA") or os.environ.get("TFDS_DATA_DIR")
    return epath.Path(chosen or "~/tensorflow_datasets").expanduser()


def _locate(name: str, folder: Any) -> Any:
    base, _, version = name.partition(":")
    found = _versions(folder / base)
    if found and not version:
        return folder / base / found[-1]
    if version in found:
        return folder / base / version
    if found:
        raise FileNotFoundError(
            f"{folder} holds {base} in version {', '.join(found)}, not {version}"
        )
    there = (
        ", ".join(_sets(folder)) or "no set"
        if folder.exists()
        else "nothing: there is no such folder"
    )
    raise FileNotFoundError(
        f"data set {name!r} is not in {folder} (which holds {there}): prepare it with "
        f"`pip install 'diffusion_jax[tfds]'` and `{_command(name, folder)}`, "
        "or name its folder by data_dir or $DIFFUSION_JAX_DATA"
    )


def _command(name: str, folder: Any) -> str:
    return f"tfds build {name} --data_dir {folder} --file_format array_record"


def _versions(home: Any) -> list[str]:
    """The versions in a set's folder, oldest first, without those that were never finished."""
    if not home.is_dir():
        return []
    names = [path.name for path in home.iterdir() if re.fullmatch(r"\d+\.\d+\.\d+", path.name)]
    whole = [name for name in names if (home / name / "dataset_info.json").exists()]
    return sorted(whole, key=lambda name: [int(part) for part in name.split(".")])


def _sets(folder: Any) -> list[str]:
    homes = [home for home in folder.iterdir() if home.is_dir()]
    configured = [path for home in homes for path in home.iterdir() if path.is_dir()]
    return sorted(str(home.relative_to(folder)) for home in homes + configured if _versions(home))


def _image_shape(name: str, features: Any) -> tuple[int, int, int]:
    if "image" not in features:
        raise ValueError(
            f"{name} has no feature called 'image'; it has {', '.join(sorted(features))}"
        )
    image = features["image"]
    if len(image.shape) != 3 or None in image.shape or image.np_dtype != "uint8":
        raise ValueError(
            f"{name}: images must be uint8 of one size [h, w, c], "
            f"not {image.np_dtype} {list(image.shape)}; "
            "prepare a resized set"
        )
    return tuple(image.shape)


def _label(name: str, wanted: str | None, classes: list[str]) -> str | None:
    if wanted is None:
        return "label" if "label" in classes else next(iter(classes), None)
    if wanted not in classes:
        raise ValueError(
            f"{name} has no class feature {wanted!r}; it has {', '.join(classes) or 'none'}"
        )
    return wanted


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without the warnings and the advice that TFDS gives when it is imported and used."""
    logger = logging.getLogger("absl")
    before = logger.level
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            logger.setLevel(before)
