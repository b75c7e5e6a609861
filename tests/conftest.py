"""Strictness for every test: shapes are checked, ranks never promote silently, warnings are errors.

Warnings are set in `pyproject.toml`. There is no persistent compilation cache on purpose: JAX
writes its entries in place, so two workers could read each other's half-written ones, and the
resulting warning would fail an innocent test.
"""

import importlib.metadata
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

# Both have to happen before anything imports the package or starts JAX's backend.
# Only jaxlib 0.10 is known to know the flag, and an unknown one aborts the process.
if importlib.metadata.version("jaxlib").startswith("0.10."):
    # Most of the tests' time is compilation: with fewer optimisations 2:02 instead of 2:40 for
    # tests/samplers/test_solvers.py, tests/models/test_dit.py and tests/training/test_step.py.
    os.environ.setdefault(
        "XLA_FLAGS",
        "--xla_cpu_experimental_ynn_fusion_type=-individual_convolution "
        "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true",
    )

# Without this, libtpu is loaded where it is installed, and looks for a TPU at length.
os.environ.setdefault("JAX_PLATFORMS", "cpu")

from jaxtyping import install_import_hook

install_import_hook("diffusion_jax", "beartype.beartype")

import jax  # noqa: E402
import jaxtyping  # noqa: E402

jax.config.update("jax_numpy_rank_promotion", "raise")

TESTS = Path(__file__).resolve().parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything under tests/parity carries the marker `parity`."""
    for item in items:
        if item.path.is_relative_to(TESTS / "parity"):
            item.add_marker(pytest.mark.parity)


@pytest.fixture
def x64() -> Iterator[None]:
    """Double precision for the length of one test: for the maths, where float32 hides an error."""
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", before)


@pytest.fixture
def untyped() -> Iterator[None]:
    """Arguments of other types than the annotations', for one test: users have no type checker."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of prepared TFDS sets, or a skip where there is none."""
    beside = TESTS.parent.parent / "shared" / "data" / "tfds"
    folder = Path(os.environ.get("DIFFUSION_JAX_DATA") or beside)
    if not folder.is_dir():
        pytest.skip("needs the prepared TFDS sets: set DIFFUSION_JAX_DATA")
    return folder


@pytest.fixture(scope="session")
def vocabulary_file(shared_data: Path) -> Path:
    """OpenAI's list of merges, in the folder `raw` beside the prepared sets, or a skip."""
    file = shared_data.parent / "raw" / "clip_bpe" / "bpe_simple_vocab_16e6.txt.gz"
    if not file.is_file():
        pytest.skip(f"needs CLIP's vocabulary: raw/clip_bpe/{file.name} beside the TFDS sets")
    return file
