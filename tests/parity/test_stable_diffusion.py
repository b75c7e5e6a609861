"""Stable Diffusion's networks are diffusers': their folders here, and ours there."""

import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
torch = pytest.importorskip("torch", reason="needs the extra `parity`: torch")
diffusers = pytest.importorskip("diffusers", reason="needs the extra `parity`: diffusers")
transformers = pytest.importorskip("transformers", reason="needs the extra `parity`: transformers")

from diffusion_jax.data import BytePairs  # noqa: E402
from diffusion_jax.interop import (  # noqa: E402
    load_autoencoder,
    load_stable_diffusion,
    load_unet,
    save_autoencoder,
    save_stable_diffusion,
    save_unet,
)
from diffusion_jax.types import Condition  # noqa: E402

TOLERANCE = 1e-5  # of the largest value
TEXT, TOKENS, POOLED = 12, 5, 10

SHARED = {
    "block_out_channels": (16, 32),
    "layers_per_block": 1,
    "norm_num_groups": 8,
    "cross_attention_dim": TEXT,
    "sample_size": 8,
}
TWO_LEVELS = {
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
}
XL = {
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    "attention_head_dim": (2, 4),
    "transformer_layers_per_block": (1, 3),
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 8,
    "projection_class_embeddings_input_dim": POOLED + 6 * 8,
}
UNETS = {
    "sd1": {**SHARED, **TWO_LEVELS, "attention_head_dim": 4},
    "sd2": {**SHARED, **TWO_LEVELS, "attention_head_dim": (2, 4), "use_linear_projection": True},
    "xl": {**SHARED, **XL},
    "inpainting": {**SHARED, **TWO_LEVELS, "attention_head_dim": 2, "in_channels": 9},
    "classes": {**SHARED, **TWO_LEVELS, "attention_head_dim": 2, "num_class_embeds": 7},
    "unclip": {  # SD 2.1's variations: a vector through an MLP
        **SHARED,
        **TWO_LEVELS,
        "attention_head_dim": 2,
        "class_embed_type": "projection",
        "projection_class_embeddings_input_dim": 6,
    },
    "sines": {**SHARED, **TWO_LEVELS, "flip_sin_to_cos": False, "freq_shift": 1, "norm_eps": 1e-3},
}
CODECS = {
    "kl": {"block_out_channels": (16, 32), "layers_per_block": 1, "norm_num_groups": 8},
    "plain": {
        "block_out_channels": (8, 8, 16),
        "layers_per_block": 2,
        "norm_num_groups": 4,
        "latent_channels": 5,
        "mid_block_add_attention": False,
        "use_quant_conv": False,
        "use_post_quant_conv": False,
    },
}


def randomised(peer, seed=0):
    """Every parameter at random, so that no zero or one of a fresh network hides an error."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in peer.named_parameters():
            z = torch.randn(p.shape, generator=generator)
            if p.ndim > 1:
                p.copy_(z / p[0].numel() ** 0.5)
            else:
                p.copy_(0.3 * z + (1.0 if "norm" in name and name.endswith("weight") else 0.0))
    return peer.eval()


def codec_of(name):
    levels = len(CODECS[name]["block_out_channels"])
    blocks = {
        "down_block_types": ("DownEncoderBlock2D",) * levels,
        "up_block_types": ("UpDecoderBlock2D",) * levels,
    }
    return randomised(diffusers.AutoencoderKL(**blocks, **CODECS[name]))


def unet_of(name):
    return randomised(diffusers.UNet2DConditionModel(**UNETS[name]))


def nhwc(x):
    return jnp.asarray(x.detach().permute(0, 2, 3, 1).contiguous().numpy())


def drawn(*shape, seed=1):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def difference(ours, theirs) -> float:
    """The largest difference, relative to the largest value."""
    a, b = (np.asarray(x, np.float64) for x in (ours, theirs))
    assert a.shape == b.shape and b.std() > 1e-2
    return float(np.abs(a - b).max() / np.abs(b).max())


def unet_answers(name, peer, part):
    """Ours and theirs, with everything that this U-Net reads."""
    x = drawn(2, peer.config.in_channels, 8, 12)
    t, text = torch.tensor([3, 871]), drawn(2, TOKENS, TEXT, seed=2)
    vector, extra = None, {}
    if name == "xl":
        pooled = drawn(2, POOLED, seed=3)
        sizes = torch.tensor([[512.0, 384, 0, 16, 1024, 1024], [1024, 1024, 8, 0, 512, 768]])
        extra = {"added_cond_kwargs": {"text_embeds": pooled, "time_ids": sizes}}
        vector = torch.cat([pooled, sizes], dim=1).numpy()
    if name == "classes":
        extra = {"class_labels": torch.tensor([6, 2])}
        vector = np.eye(7, dtype=np.float32)[[6, 2]]
    if name == "unclip":
        extra = {"class_labels": drawn(2, 6, seed=3)}
        vector = extra["class_labels"].numpy()
    with torch.no_grad():
        theirs = nhwc(peer(x, t, text, **extra).sample)
    pixels, image = nhwc(x), None
    if name == "inpainting":
        pixels, image = pixels[..., :4], pixels[..., 4:]
    condition = Condition(tokens=jnp.asarray(text.numpy()), image=image)
    if vector is not None:
        condition = condition._replace(vector=jnp.asarray(vector))
    times = jnp.asarray(t.numpy(), jnp.float32)
    apply = jax.jit(lambda p: part.module.apply({"params": p}, pixels, times, condition))
    return apply(part.params), theirs


@pytest.mark.parametrize("name", UNETS)
def test_unets_both_ways(name, tmp_path):
    peer = unet_of(name)
    peer.save_pretrained(tmp_path / "theirs")
    part = load_unet(tmp_path / "theirs", pooled=POOLED if name == "xl" else None)
    ours, theirs = unet_answers(name, peer, part)
    assert difference(ours, theirs) < TOLERANCE

    part = part._replace(params=jax.tree.map(lambda x: 0.9 * x, part.params))
    save_unet(tmp_path / "ours", part)
    again, told = diffusers.UNet2DConditionModel.from_pretrained(
        tmp_path / "ours", output_loading_info=True
    )
    assert not any(told[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    ours, back = unet_answers(name, again.eval(), part)
    assert difference(ours, back) < TOLERANCE
    assert difference(back, theirs) > 1e-2


def codec_answers(peer, part):
    x = drawn(2, 3, 16, 24).clamp(-1, 1)
    factor = 2 ** (len(peer.config.block_out_channels) - 1)
    z = drawn(2, peer.config.latent_channels, 16 // factor, 24 // factor, seed=2)
    with torch.no_grad():
        posterior = peer.encode(x).latent_dist
        theirs = [nhwc(y) for y in (posterior.mean, posterior.logvar, peer.decode(z).sample)]

    def ours(params):
        q = part.module.apply({"params": params}, nhwc(x), method="encode")
        y = part.module.apply({"params": params}, nhwc(z), method="decode")
        return q.mean, q.log_variance, y

    return jax.jit(ours)(part.params), theirs


@pytest.mark.parametrize("name", CODECS)
def test_autoencoders_both_ways(name, tmp_path):
    peer = codec_of(name)
    peer.save_pretrained(tmp_path / "theirs")
    part = load_autoencoder(tmp_path / "theirs")
    for ours, theirs in zip(*codec_answers(peer, part), strict=True):
        assert difference(ours, theirs) < TOLERANCE

    part = part._replace(params=jax.tree.map(lambda x: 0.9 * x, part.params))
    save_autoencoder(tmp_path / "ours", part)
    again, told = diffusers.AutoencoderKL.from_pretrained(
        tmp_path / "ours", output_loading_info=True
    )
    assert not any(told[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    for ours, theirs in zip(*codec_answers(again.eval(), part), strict=True):
        assert difference(ours, theirs) < TOLERANCE


def tokenizer():
    """CLIP's kind without merges, whose ids are 0..511 for bytes, then start and end."""
    words = BytePairs.from_merges([]).vocabulary
    return transformers.CLIPTokenizer(
        vocab={word: i for i, word in enumerate(words)}, merges=[], model_max_length=9
    )


def text_encoder(kind, features, activation="quick_gelu"):
    config = transformers.CLIPTextConfig(
        vocab_size=514,
        max_position_embeddings=9,
        hidden_size=TEXT if kind == "CLIPTextModel" and features is None else features,
        intermediate_size=20,
        num_hidden_layers=3,
        num_attention_heads=2,
        projection_dim=POOLED,
        hidden_act=activation,
        bos_token_id=512,
        eos_token_id=513,
        pad_token_id=513,
    )
    return randomised(getattr(transformers, kind)(config))


def pipeline(name):
    """diffusers' pipeline of random parts."""
    shared = {
        "vae": codec_of("kl"),
        "unet": unet_of(name),
        "scheduler": diffusers.DDIMScheduler(
            steps_offset=1, clip_sample=False, prediction_type="v_prediction"
        ),
        "tokenizer": tokenizer(),
    }
    if name != "xl":
        kind = "Inpaint" if name == "inpainting" else ""
        return getattr(diffusers, f"StableDiffusion{kind}Pipeline")(
            text_encoder=text_encoder("CLIPTextModel", None),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
            **shared,
        )
    return diffusers.StableDiffusionXLPipeline(
        text_encoder=text_encoder("CLIPTextModel", 4),
        text_encoder_2=text_encoder("CLIPTextModelWithProjection", 8, "gelu"),
        tokenizer_2=tokenizer(),
        **shared,
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sd1", "inpainting", "xl"])
def test_pipelines_both_ways(name, tmp_path):
    peer = pipeline(name)
    peer.save_pretrained(tmp_path / "theirs")
    system = load_stable_diffusion(tmp_path / "theirs")
    save_stable_diffusion(tmp_path / "ours", system, tokenizers=tmp_path / "theirs")
    again = type(peer).from_pretrained(tmp_path / "ours")

    ids = np.array([[512, 2, 5, 513, 513, 513], [512, 7, 6, 3, 4, 513]])
    for loaded in (peer, again):
        ours, theirs = unet_answers(name, loaded.unet, system.unet)
        assert difference(ours, theirs) < TOLERANCE
        for a, b in zip(*codec_answers(loaded.vae, system.codec), strict=True):
            assert difference(a, b) < TOLERANCE
        encoders = [loaded.text_encoder]
        if name == "xl":
            encoders.append(loaded.text_encoder_2)
        assert len(encoders) == len(system.texts)
        for encoder, part in zip(encoders, system.texts, strict=True):
            with torch.no_grad():
                out = encoder(torch.from_numpy(ids), output_hidden_states=True)
            y = part.module.apply({"params": part.params}, jnp.asarray(ids), method="encode_text")
            assert difference(y.tokens, out.last_hidden_state) < TOLERANCE
            assert difference(y.penultimate, out.hidden_states[-2]) < TOLERANCE
            pooled = out[0] if name == "xl" and encoder is encoders[1] else out.pooler_output
            assert difference(y.pooled, pooled) < TOLERANCE
    assert again.scheduler.config.prediction_type == peer.scheduler.config.prediction_type
    assert system.scale == peer.vae.config.scaling_factor
    assert again.tokenizer("a b").input_ids == peer.tokenizer("a b").input_ids
