"""Stable Diffusion from ids and noise to pictures, as diffusers draws them."""

import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
torch = pytest.importorskip("torch", reason="needs the extra `parity`: torch")
diffusers = pytest.importorskip("diffusers", reason="needs the extra `parity`: diffusers")

from diffusion_jax.interop import load_stable_diffusion  # noqa: E402
from diffusion_jax.interop.sd_system import system_of, told_of, zeros_for_nothing  # noqa: E402
from diffusion_jax.systems.latent import LatentDiffusion, begun  # noqa: E402
from tests.parity.test_stable_diffusion import drawn, nhwc, pipeline  # noqa: E402

TOLERANCE = 1e-4  # of pictures in [0, 1]
SIZE, STEPS, GAMMA = (16, 32), 5, 3.0
TEXTS, NEGATIVE = ["a b c", "b"], ["c c", "a"]
INDEX = jnp.arange(2)


@pytest.fixture(scope="module", params=["sd1", "xl", "inpainting"])
def both(request, tmp_path_factory):
    """A pipeline of random parts, and ours of its folder."""
    peer = pipeline(request.param)
    peer.set_progress_bar_config(disable=True)
    folder = tmp_path_factory.mktemp(request.param)
    peer.save_pretrained(folder)
    parts = load_stable_diffusion(folder)
    tokenizers = [peer.tokenizer, getattr(peer, "tokenizer_2", None)][: len(parts.texts)]

    def ids(texts):
        return [
            jnp.asarray(one(texts, padding="max_length", max_length=9).input_ids)[:, None]
            for one in tokenizers
        ]

    def tell(negative, **more):
        return told_of(parts, ids(TEXTS), ids(negative), SIZE, **more)

    system = system_of(parts, SIZE, steps=STEPS, guidance=GAMMA)
    nothing = tell(["", ""], zeros=zeros_for_nothing(parts))
    return request.param, peer, system, tell(NEGATIVE), nothing


def asked(peer, negative=NEGATIVE, **more):
    with torch.no_grad():
        return peer(
            TEXTS, negative_prompt=negative, num_inference_steps=STEPS, guidance_scale=GAMMA,
            output_type="np", height=SIZE[0], width=SIZE[1], **more,
        ).images  # fmt: skip


def latents(seed=5):
    return drawn(2, 4, SIZE[0] // 2, SIZE[1] // 2, seed=seed)


def close(ours, theirs):
    ours = np.asarray(ours) / 2 + 0.5
    assert ours.shape == theirs.shape and theirs.std() > 0.05
    np.testing.assert_allclose(ours, theirs, atol=TOLERANCE)


def test_a_text_becomes_the_same_picture(both):
    kind, peer, system, known, _ = both
    noise, more = latents(), {}
    if kind == "inpainting":
        mask, masked = (latents(6)[:, :1] > 0).float(), 0.5 * latents(7)
        more = {
            "image": torch.zeros(2, 3, *SIZE),
            "mask_image": mask.repeat_interleave(2, 2).repeat_interleave(2, 3),
            "masked_image_latents": masked,
        }
        image = jnp.concatenate([nhwc(mask), nhwc(masked)], axis=-1)
        known = {**known, "image": image}
    theirs = asked(peer, latents=noise, **more)
    ours = jax.jit(LatentDiffusion.sample)(system, jax.random.key(0), known, INDEX, nhwc(noise))
    close(ours, theirs)


@pytest.mark.parametrize("both", ["sd1", "xl"], indirect=True)
def test_without_a_negative_text(both):
    _, peer, system, _, nothing = both
    noise = latents()
    theirs = asked(peer, negative=None, latents=noise)
    args = (system, jax.random.key(0), nothing, INDEX, nhwc(noise))
    close(jax.jit(LatentDiffusion.sample)(*args), theirs)


@pytest.mark.parametrize("both", ["sd1"], indirect=True)
def test_a_picture_becomes_the_same_picture(both):
    _, peer, system, known, _ = both
    to = diffusers.StableDiffusionImg2ImgPipeline(**peer.components, requires_safety_checker=False)
    to.set_progress_bar_config(disable=True)
    z = 0.7 * latents(8)
    noise = torch.randn(z.shape, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        theirs = to(
            TEXTS, image=z, strength=0.6, negative_prompt=NEGATIVE, num_inference_steps=STEPS,
            guidance_scale=GAMMA, output_type="np", generator=torch.Generator().manual_seed(3),
        ).images  # fmt: skip
    stage = begun(system.stage, 0.6)
    start = stage.process.corrupt(nhwc(z), nhwc(noise), jnp.full(2, stage.times[0]))
    ours = jax.jit(LatentDiffusion.sample)(
        LatentDiffusion(stage, system.codec), jax.random.key(0), known, INDEX, start
    )
    close(ours, theirs)
