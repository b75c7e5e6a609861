"""A folder like a checkout, with small codecs of digits."""

import contextlib
from pathlib import Path

import pytest

from diffusion_jax.training.cli import train_command

ROOT = Path(__file__).resolve().parents[3]
FEW = ["--log-every", "2", "--sample-every", "0", "--steps", "2"]

# The recipes of emoji's codecs, on digits, with networks of hundreds of parameters.
CODEC = """
import dataclasses
from pathlib import Path
from diffusion_jax.data import digits
from diffusion_jax.training.recipes import load_recipe
from tests.training.test_codecs import SMALL


def recipe(kind: str = "kl_emoji64", steps: int = 2):
    task = load_recipe(Path("configs") / (kind + ".py"))(steps=steps, batch_size=8)
    alone = {} if kind.startswith("vae") else {"player": None}
    return dataclasses.replace(
        task,
        source=lambda split, data_dir: digits(split),
        image_shape=(8, 8, 1),
        network=SMALL[kind],
        **alone,
    )
"""

# A model of their latents; `told` is what it's told beside the label.
LATENT = """
from pathlib import Path
from typing import Literal
import optax
from diffusion_jax import Cosine, Gaussian, V
from diffusion_jax.data import digits
from diffusion_jax.data.views import mapped
from diffusion_jax.models import ClassLabels, Inpainting, Joined, LowResolution, Segmentation
from diffusion_jax.models import from_linen
from diffusion_jax.training.codecs import load_codec
from diffusion_jax.training.experiment import adam
from diffusion_jax.training.latent_experiment import LatentExperiment
from diffusion_jax.training.latents import CodecRun, encodable, latents
from tests.training import toy

PARTS = {
    "hole": Inpainting(),
    "low": LowResolution(2, enlarge=1),
    "map": Segmentation(2, factor=2),
    "wide": Segmentation(2),
}


def recipe(
    codec: Path = Path("runs/kl"),
    told: Literal["hole", "low", "map", "wide"] | None = None,
    on_the_fly: bool = False,
    steps: int = 2,
):
    def source(split, data_dir):
        pictures = mapped(digits(split), lambda r: {"segmentation": r["image"][..., 0] // 128})
        return (encodable if on_the_fly else latents)(codec, pictures, data_dir)

    label = ClassLabels(10)
    return LatentExperiment(
        source=source,
        image_shape=(8, 8, 1),
        model=from_linen(toy.Tiny(4)),
        process=Gaussian(Cosine()),
        parameterization=V(),
        conditioning=Joined((label, PARTS[told])) if told else label,
        learning_rate=optax.constant_schedule(1e-2),
        optimizer=adam,
        batch_size=8,
        steps=steps,
        codec=CodecRun(codec),
        latent_shape=load_codec(codec).latent_shape,
        on_the_fly=on_the_fly,
        needs=(codec,),
    )
"""

CODES = """
from pathlib import Path
import optax
from diffusion_jax.data import digits
from diffusion_jax.models import ClassLabels
from diffusion_jax.models.code_transformer import CodeTransformer
from diffusion_jax.training.code_pictures import CodeTask
from diffusion_jax.training.experiment import adam
from diffusion_jax.training.latents import codes


def recipe(codec: Path = Path("runs/vq"), steps: int = 2):
    return CodeTask(
        source=lambda split, data_dir: codes(codec, digits(split)),
        image_shape=(4, 4),
        network=CodeTransformer(16, 8, 16, 1, 2),
        conditioning=ClassLabels(10),
        codec=codec,
        learning_rate=optax.constant_schedule(1e-2),
        optimizer=adam,
        batch_size=8,
        steps=steps,
        needs=(codec,),
    )
"""


@pytest.fixture(scope="package")
def folder(tmp_path_factory):
    """A working directory with the recipes and runs of two codecs."""
    folder = tmp_path_factory.mktemp("latent")
    (folder / "configs").mkdir()
    for path in (ROOT / "configs").glob("*.py"):
        (folder / "configs" / path.name).symlink_to(path)
    for name, text in {"codec": CODEC, "latent": LATENT, "codes": CODES}.items():
        (folder / "configs" / f"{name}.py").write_text(text)
    with contextlib.chdir(folder):
        train_command(["configs/codec.py", "--run-dir", "runs/kl", *FEW])
        train_command(["configs/codec.py", "--kind", "vq_emoji64", "--run-dir", "runs/vq", *FEW])
    return folder


@pytest.fixture(autouse=True, scope="module")
def inside(folder):
    """Each module's working directory: a worker has modules of other packages in turn."""
    with contextlib.chdir(folder):
        yield
