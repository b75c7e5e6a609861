"""Stable Diffusion from texts and noise to pictures, as diffusers draws them."""

import functools
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
torch = pytest.importorskip("torch", reason="needs the extra `parity`: torch")
diffusers = pytest.importorskip("diffusers", reason="needs the extra `parity`: diffusers")

from diffusion_jax.interop import load_stable_diffusion, save_stable_diffusion  # noqa: E402
from diffusion_jax.interop.sd_drawing import inpainted  # noqa: E402
from diffusion_jax.interop.sd_system import (  # noqa: E402
    load_tokenizers,
    system_of,
    tokens_of,
    told_of,
    zeros_for_nothing,
)
from diffusion_jax.samplers import draw_prior  # noqa: E402
from diffusion_jax.systems.latent import LatentDiffusion, begun  # noqa: E402
from tests.parity.test_stable_diffusion import (  # noqa: E402
    POOLED,
    UNETS,
    codec_of,
    drawn,
    nhwc,
    pipeline,
    randomised,
    text_encoder,
    tokenizer,
)

TOLERANCE = 1e-4  # of pictures in [0, 1]
SIZE, STEPS, GAMMA = (16, 32), 5, 3.0
TEXTS, NEGATIVE, NOTHING = ["a b c", "b’!"], ["c c", "a"], ["", ""]
INDEX = jnp.arange(2)


def refiner():
    """XL's refiner, which has the second text encoder alone and is told a score."""
    fields = {"projection_class_embeddings_input_dim": POOLED + 5 * 8, "cross_attention_dim": 8}
    return diffusers.StableDiffusionXLImg2ImgPipeline(
        vae=codec_of("kl"),
        unet=randomised(diffusers.UNet2DConditionModel(**{**UNETS["xl"], **fields})),
        scheduler=diffusers.DDIMScheduler(clip_sample=False, prediction_type="v_prediction"),
        text_encoder=None,
        tokenizer=None,
        text_encoder_2=text_encoder("CLIPTextModelWithProjection", 8, "gelu"),
        tokenizer_2=tokenizer(),
        requires_aesthetics_score=True,
        force_zeros_for_empty_prompt=False,
    )


@pytest.fixture(scope="module", params=["sd1", "xl", "inpainting", "refiner"])
def both(request, tmp_path_factory):
    """A pipeline of random parts, ours of its folder, and what tells ours."""
    peer = refiner() if request.param == "refiner" else pipeline(request.param)
    peer.set_progress_bar_config(disable=True)
    with torch.no_grad():  # they draw latents of a picture, where ours are the mean
        peer.vae.quant_conv.weight[4:], peer.vae.quant_conv.bias[4:] = 0.0, -30.0
    folder = tmp_path_factory.mktemp(request.param)
    peer.save_pretrained(folder)
    parts = load_stable_diffusion(folder)
    tokenizers = load_tokenizers(folder, parts)

    def tell(negative=NEGATIVE, **more):
        prompted = tokens_of(tokenizers, TEXTS, negative)
        ids = ([jnp.asarray(x.ids) for x in some] for some in (prompted.texts, prompted.negative))
        zeros = negative == NOTHING and zeros_for_nothing(parts)
        return told_of(parts, *ids, SIZE, zeros=zeros, **more)

    again = functools.partial(save_stable_diffusion, system=parts, tokenizers=folder)
    return request.param, peer, system_of(parts, SIZE, steps=STEPS, guidance=GAMMA), tell, again


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


def ours_of(system, known, noise):
    args = (system, jax.random.key(0), known, INDEX, nhwc(noise))
    return jax.jit(LatentDiffusion.sample)(*args)


@pytest.mark.parametrize("both", ["sd1", "xl", "inpainting"], indirect=True)
def test_a_text_becomes_the_same_picture(both):
    kind, peer, system, tell, _ = both
    noise, more, known = latents(), {}, tell()
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
    close(ours_of(system, known, noise), theirs)


@pytest.mark.parametrize("both", ["sd1", "xl"], indirect=True)
def test_without_a_negative_text(both):
    _, peer, system, tell, _ = both
    noise = latents()
    theirs = asked(peer, negative=None, latents=noise)
    close(ours_of(system, tell(NOTHING), noise), theirs)


@pytest.mark.parametrize("both", ["xl"], indirect=True)
def test_sizes_and_crops_are_told(both):
    _, peer, system, tell, _ = both
    noise = latents()
    told = {"original_size": (70, 50), "crops_coords_top_left": (3, 9)}
    theirs = asked(peer, latents=noise, **told)
    assert np.abs(theirs - asked(peer, latents=noise)).max() > 100 * TOLERANCE
    close(ours_of(system, tell(original=(70, 50), corner=(3, 9)), noise), theirs)


@pytest.mark.parametrize("both", ["sd1", "xl"], indirect=True)
def test_a_folder_of_ours_draws_the_same_picture_there(both, tmp_path):
    _, peer, system, tell, save = both
    save(tmp_path)
    again = type(peer).from_pretrained(tmp_path)
    again.set_progress_bar_config(disable=True)
    noise = latents()
    close(ours_of(system, tell(), noise), asked(again, latents=noise))


@pytest.mark.parametrize("both", ["inpainting"], indirect=True)
def test_a_hole_is_filled_with_the_same_picture(both):
    _, peer, system, tell, _ = both
    picture = torch.sigmoid(drawn(2, 3, *SIZE, seed=6))
    kept = (latents(7)[:, :1] > 0).float().repeat_interleave(2, 2).repeat_interleave(2, 3)
    key, stage = jax.random.key(3), system.stage
    noise = draw_prior(key, stage.process, (2, *stage.shape), index=INDEX)
    noise = torch.from_numpy(np.array(noise)).permute(0, 3, 1, 2)
    theirs = asked(peer, latents=noise, image=picture, mask_image=1 - kept)
    known = {**tell(), "picture": 2 * nhwc(picture) - 1, "kept": nhwc(kept)}
    run = jax.jit(functools.partial(inpainted, reads_image=True))
    ours, kept = run(system, key, known, INDEX), np.asarray(nhwc(kept))
    assert 0.3 < kept.mean() < 0.7
    # ours are the picture itself where it is kept, theirs what was drawn there
    close(ours, np.where(kept == 1, np.asarray(nhwc(picture)), theirs))


IMAGE_TO_IMAGE = {
    "sd1": (diffusers.StableDiffusionImg2ImgPipeline, {"requires_safety_checker": False}, 0.6),
    "xl": (
        diffusers.StableDiffusionXLImg2ImgPipeline,
        {},
        1.0,
    ),  # nothing to compile
    "refiner": (None, {}, 0.6),
}


@pytest.mark.parametrize("both", ["sd1", "xl", "refiner"], indirect=True)
def test_a_picture_becomes_the_same_picture(both):
    kind, to, system, tell, _ = both
    pipe, more, strength = IMAGE_TO_IMAGE[kind]
    if pipe is not None:
        to = pipe(**to.components, **more)
    to.set_progress_bar_config(disable=True)
    z = 0.7 * latents(8)
    noise = torch.randn(z.shape, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        theirs = to(
            TEXTS, image=z, strength=strength, negative_prompt=NEGATIVE, num_inference_steps=STEPS,
            guidance_scale=GAMMA, output_type="np", generator=torch.Generator().manual_seed(3),
        ).images  # fmt: skip
    stage = begun(system.stage, strength)
    start = stage.process.corrupt(nhwc(z), nhwc(noise), jnp.full(2, stage.times[0]))
    ours = jax.jit(LatentDiffusion.sample)(
        LatentDiffusion(stage, system.codec), jax.random.key(0), tell(), INDEX, start
    )
    close(ours, theirs)
