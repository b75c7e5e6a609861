"""A folder like a checkout, with a small unCLIP trained on shapes."""

import contextlib
import shutil
from pathlib import Path

import pytest

from diffusion_jax.training.cli import train_command
from diffusion_jax.training.embeddings import embeddings, load_clip_task
from diffusion_jax.training.needs import pin

ROOT = Path(__file__).resolve().parents[3]
FEW = ["--log-every", "2", "--sample-every", "0", "--steps", "2"]


# shapes_clip on 48 pictures: what it says of 40,000 would take minutes.
TINY = """
import dataclasses
from pathlib import Path
from diffusion_jax.data import subset
from diffusion_jax.training.recipes import load_recipe


def recipe(steps: int = 2, seed: int = 0):
    shapes_clip = load_recipe(Path("configs/shapes_clip.py"))
    task = shapes_clip(steps, batch_size=8, width=32, layers=1, seed=seed)
    few = lambda split, data_dir: subset(task.source(split, data_dir), range(48))
    return dataclasses.replace(task, source=few)
"""


# emoji_decoder with a network that compiles in a moment.
DECODER = """
import dataclasses
from pathlib import Path
from diffusion_jax.models import from_linen
from diffusion_jax.training.recipes import load_recipe
from tests.training import toy


def recipe(features: int, vocabulary: int, length: int, steps: int = 2):
    task = load_recipe(Path("configs/emoji_decoder.py"))(
        Path("runs/clip"), steps, 8, features=features, vocabulary=vocabulary, length=length,
        size=16, factor=1,
    )
    return dataclasses.replace(task, model=from_linen(toy.Tiny(4)))
"""


# shapes_upsampling, on patches, with such a network.
UPSAMPLER = """
import dataclasses
from pathlib import Path
from diffusion_jax.data import patch
from diffusion_jax.models import from_linen
from diffusion_jax.training.recipes import load_recipe
from tests.training import toy


def recipe(steps: int = 2):
    task = load_recipe(Path("configs/shapes_upsampling.py"))(steps, 8, size=32)
    small = from_linen(toy.Tiny(4))
    return dataclasses.replace(task, model=small, image_shape=(16, 16, 3), augment=patch(16))
"""


@pytest.fixture(scope="package")
def folder(tmp_path_factory):
    """A working directory with the recipes and a run of a CLIP."""
    folder = tmp_path_factory.mktemp("unclip")
    (folder / "configs").mkdir()
    for path in (ROOT / "configs").glob("*.py"):
        (folder / "configs" / path.name).symlink_to(path)
    (folder / "configs" / "tiny.py").write_text(TINY)
    (folder / "configs" / "decoder.py").write_text(DECODER)
    (folder / "configs" / "upsampler.py").write_text(UPSAMPLER)
    with contextlib.chdir(folder):
        train_command(["configs/tiny.py", "--run-dir", "runs/clip", *FEW])
    return folder


@pytest.fixture(autouse=True, scope="module")
def inside(folder):
    """Each module's working directory: a worker has modules of other packages in turn."""
    with contextlib.chdir(folder):
        yield


@pytest.fixture(scope="package")
def small(folder):
    """What the CLIP says of its pictures."""
    with contextlib.chdir(folder):
        return embeddings(Path("runs/clip"), "train", None)


@pytest.fixture(scope="package")
def chain(small, folder):
    """Runs of a prior, a decoder and an upsampler as train.py leaves them."""
    with contextlib.chdir(folder):
        text = load_clip_task(Path("runs/clip")).clip.text
        flags = f"--features {text.features} --vocabulary {text.vocabulary} --length {text.length}"
        own = "--clip runs/clip --batch-size 8 --width 32 --layers 1 --run-dir runs/prior"
        codes = "--codes 4 --buckets 8 --alignments 4"
        train_command(["configs/emoji_code_prior.py", *f"{flags} {own} {codes}".split(), *FEW])
        few = "--log-every 2 --sample-every 2 --steps 2"  # which draws held-out embeddings
        train_command(["configs/decoder.py", *flags.split(), *few.split()])
        train_command(["configs/upsampler.py", *few.split()])  # and held-out patches
        for name in ("decoder", "upsampler"):
            assert len(list(Path(f"runs/{name}/samples").iterdir())) == 1
        shutil.copytree("runs/prior", "runs/stranger")
        shutil.copytree("runs/clip", "runs/clip2")
        (Path("runs/stranger") / "needs.json").unlink()
        pin(Path("runs/stranger"), [Path("runs/clip2")])
