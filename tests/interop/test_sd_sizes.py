"""SDXL and its refiner: which numbers their U-Nets are told beside the texts."""

import jax.numpy as jnp
import pytest

from diffusion_jax.interop import load_stable_diffusion, save_stable_diffusion
from diffusion_jax.interop.sd_system import told_of
from tests.interop.sd import XL, refiner, system, tokenizers


def test_a_refiner_has_but_the_second_encoder_and_five_sizes(tmp_path):
    save_stable_diffusion(tmp_path / "refiner", refiner(), tokenizers(tmp_path / "elsewhere"))
    assert not (tmp_path / "refiner" / "text_encoder").exists()
    found = load_stable_diffusion(tmp_path / "refiner")
    assert found.pipeline["requires_aesthetics_score"] is True
    assert [t.module for t in found.texts] == [t.module for t in refiner().texts]
    assert found.unet.module == refiner().unet.module and found.unet.module.sizes == 5


def test_what_unets_are_told_of_sizes():
    ids, size = jnp.asarray([[[0, 3, 10, 10, 10, 10, 10]]]), (16, 24)

    def told(parts, **more):
        each = [ids] * len(parts.texts)
        known = told_of(parts, each, each, size, **more)
        names = ("vector", "negative_vector")
        return [known[name][0, 6:].tolist() for name in names if name in known]

    assert told(system()) == []
    assert told(system(xl=True)) == [[16, 24, 0, 0, 16, 24]] * 2
    asked = {"original": (100, 200), "corner": (3, 4)}
    assert told(system(xl=True), **asked) == [[100, 200, 3, 4, 16, 24]] * 2
    assert told(refiner(), **asked) == [[100, 200, 3, 4, 6.0], [100, 200, 3, 4, 2.5]]
    assert told(refiner(), scores=(7.0, 1.0)) == [[16, 24, 0, 0, 7], [16, 24, 0, 0, 1]]
    four = system(xl=True).unet._replace(module=XL.clone(sizes=4))
    with pytest.raises(ValueError, match="told 4 sizes; SDXL's 6 and its refiner's 5"):
        told(system(xl=True)._replace(unet=four))
