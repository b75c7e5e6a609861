"""Our U-Net is diffusers' `UNet2DModel`: the same parameters give the same answer and gradient."""

import os
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
torch = pytest.importorskip("torch", reason="needs the extra `parity`: torch")
diffusers = pytest.importorskip("diffusers", reason="needs the extra `parity`: diffusers")

from benchmarks.diffusers_unet import from_diffusers  # noqa: E402
from diffusion_jax.models.layers import (  # noqa: E402
    ResidualBlock,
    Sinusoidal,
    average_pool,
    nearest,
)
from diffusion_jax.models.unet import UNet, adm_64, ddpm_cifar10  # noqa: E402
from diffusion_jax.types import Condition  # noqa: E402

TOLERANCE = 1e-5  # of the largest value
GRADIENT_TOLERANCE = 5e-5  # float32 sums over all pixels

modulated = partial(ResidualBlock, modulate=True)


def block_types(levels: str) -> dict:
    """diffusers' types of blocks, a letter a level from the largest pictures.

    "-" is a plain level, "R" one that resizes in a residual block, "A" one with attention (which
    resizes as `downsample_type` and `upsample_type` say; the others don't read them).
    """
    down = {"-": "DownBlock2D", "R": "ResnetDownsampleBlock2D", "A": "AttnDownBlock2D"}
    up = {"-": "UpBlock2D", "R": "ResnetUpsampleBlock2D", "A": "AttnUpBlock2D"}
    return {
        "down_block_types": tuple(down[level] for level in levels),
        "up_block_types": tuple(up[level] for level in reversed(levels)),
    }


# name: our network, diffusers' arguments, size of the pictures
NETWORKS = {
    "ddpm": (
        UNet(
            out_channels=3,
            channels=32,
            multipliers=(1, 2, 2),
            blocks=2,
            attention=(8,),
            time_features=Sinusoidal(32, shift=1),
            epsilon=1e-6,
        ),
        {
            **block_types("-A-"),
            "in_channels": 3,
            "out_channels": 3,
            "block_out_channels": (32, 64, 64),
            "layers_per_block": 2,
            "attention_head_dim": None,
            "downsample_padding": 0,
            "flip_sin_to_cos": False,
            "freq_shift": 1,
            "norm_eps": 1e-6,
        },
        (16, 16),
    ),
    "adm": (
        UNet(
            out_channels=6,
            channels=32,
            multipliers=(1, 2, 3),
            blocks=1,
            attention=(8, 4),
            head_channels=16,
            modulate=True,
            down=partial(modulated, resize=average_pool),
            up=partial(modulated, resize=nearest),
            time_features=Sinusoidal(32, shift=0),
        ),
        {
            **block_types("RAA"),
            "in_channels": 3,
            "out_channels": 6,
            "block_out_channels": (32, 64, 96),
            "layers_per_block": 1,
            "attention_head_dim": 16,
            "attn_norm_num_groups": 32,  # without it, the middle attention has no norm
            "resnet_time_scale_shift": "scale_shift",
            "downsample_type": "resnet",
            "upsample_type": "resnet",
            "flip_sin_to_cos": True,
            "freq_shift": 0,
        },
        (16, 16),
    ),
    "conditional": (  # classes, a picture beside x, and pictures that aren't square
        UNet(
            out_channels=1,
            channels=64,
            multipliers=(1, 1),
            blocks=1,
            attention=(12, 6),
            head_channels=32,
            time_features=Sinusoidal(64, shift=0),
        ),
        {
            **block_types("AA"),
            "in_channels": 3,
            "out_channels": 1,
            "block_out_channels": (64, 64),
            "layers_per_block": 1,
            "attention_head_dim": 32,
            "downsample_padding": 0,
            "flip_sin_to_cos": True,
            "freq_shift": 0,
            "num_class_embeds": 5,
        },
        (12, 20),
    ),
    "deep": (  # four levels, three blocks each, attention only in the smallest
        UNet(
            out_channels=3,
            channels=32,
            multipliers=(1, 1, 2, 3),
            blocks=3,
            attention=(2,),
            time_features=Sinusoidal(32, shift=0),
        ),
        {
            **block_types("---A"),
            "in_channels": 3,
            "out_channels": 3,
            "block_out_channels": (32, 32, 64, 96),
            "layers_per_block": 3,
            "attention_head_dim": None,
            "downsample_padding": 0,
            "flip_sin_to_cos": False,
            "freq_shift": 0,
        },
        (16, 24),
    ),
}


def randomise(peer, seed: int) -> None:
    """Every parameter at random, so that no zero or one of a fresh network hides an error."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in peer.named_parameters():
            z = torch.randn(p.shape, generator=generator)
            if p.ndim > 1:
                p.copy_(z / p[0].numel() ** 0.5)
            else:
                p.copy_(0.3 * z + (1.0 if "norm" in name and name.endswith("weight") else 0.0))


class Pair:
    """The two networks with one set of random parameters, and inputs for both."""

    def __init__(self, name: str):
        self.ours, settings, (height, width) = NETWORKS[name]
        self.peer = diffusers.UNet2DModel(sample_size=(height, width), **settings).eval()
        randomise(self.peer, seed=0)
        self.convert = partial(
            from_diffusers,
            levels=len(self.ours.multipliers),
            blocks=self.ours.blocks,
            cosine_first=settings["flip_sin_to_cos"],
        )

        generator = torch.Generator().manual_seed(1)
        batch, channels = 3, settings["in_channels"]
        self.x = torch.randn((batch, channels, height, width), generator=generator)
        self.t = torch.tensor([0, 371, 999])
        classes = settings.get("num_class_embeds")
        self.labels = torch.tensor([3, 0, 4]) if classes else None
        self.weight = torch.randn(
            (batch, settings["out_channels"], height, width), generator=generator
        )

        pixels = nhwc(self.x)
        if classes:
            labels = jnp.asarray(self.labels.numpy())
            self.condition = Condition(
                vector=jax.nn.one_hot(labels, classes), image=pixels[..., 1:]
            )
            pixels = pixels[..., :1]
        else:
            self.condition = Condition()
        self.inputs = (pixels, jnp.asarray(self.t.numpy(), jnp.float32), self.condition)
        self.like = jax.eval_shape(self.ours.init, jax.random.key(0), *self.inputs)["params"]

    def theirs(self):
        return self.peer(self.x, self.t, class_labels=self.labels).sample

    def params(self) -> dict:
        state = {k: v.detach().numpy() for k, v in self.peer.named_parameters()}
        return jax.tree.map(jnp.asarray, self.convert(state, self.like))

    def apply(self, params):
        return self.ours.apply({"params": params}, *self.inputs)


def nhwc(x) -> jax.Array:
    return jnp.asarray(x.detach().permute(0, 2, 3, 1).contiguous().numpy())


def difference(ours, theirs, floor: float = 0.0) -> float:
    """The largest difference, relative to the largest value, or to `floor` where that is more."""
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    assert ours.shape == theirs.shape
    return float(np.abs(ours - theirs).max() / max(np.abs(theirs).max(), floor))


@pytest.mark.parametrize("name", NETWORKS)
def test_same_parameters_give_the_same_answer(name):
    pair = Pair(name)
    with torch.no_grad():
        theirs = nhwc(pair.theirs())
    ours = jax.jit(pair.apply)(pair.params())

    # Neither is trivial: the answer varies over pixels and examples.
    assert float(theirs.std()) > 0.1
    assert difference(ours[:1], theirs[1:2]) > 0.1
    assert difference(ours, theirs) < TOLERANCE, (name, difference(ours, theirs))


@pytest.mark.parametrize("name", ["ddpm", "adm", "conditional"])
def test_same_parameters_give_the_same_gradient(name):
    pair = Pair(name)
    (pair.theirs() * pair.weight).sum().backward()
    theirs = pair.convert({k: v.grad.numpy() for k, v in pair.peer.named_parameters()}, pair.like)
    weight = nhwc(pair.weight)
    ours = jax.jit(jax.grad(lambda p: (pair.apply(p) * weight).sum()))(pair.params())
    if "vector" in ours:  # its bias has no counterpart
        del ours["vector"]["bias"], theirs["vector"]["bias"]

    # Some gradients are zero but for rounding (a key's bias, a bias before a norm of one channel):
    # none is measured by less than a hundredth of the largest.
    floor = 1e-2 * max(float(np.abs(leaf).max()) for leaf in jax.tree.leaves(theirs))
    errors = {
        jax.tree_util.keystr(path): difference(a, b, floor)
        for (path, a), b in zip(
            jax.tree.leaves_with_path(ours), jax.tree.leaves(theirs), strict=True
        )
    }
    worst = max(errors, key=errors.get)
    assert errors[worst] < GRADIENT_TOLERANCE, (name, worst, errors[worst])


# name: our network, and the arguments of the published network of that architecture
PUBLISHED = {
    "ddpm_cifar10": (
        ddpm_cifar10(),
        Condition(),
        {
            **block_types("-A--"),
            "block_out_channels": (128, 256, 256, 256),
            "attention_head_dim": None,
        },
        32,
    ),
    "adm_64": (
        adm_64(),
        Condition(vector=np.zeros((1, 1000), np.float32)),
        {
            **block_types("RAAA"),
            "out_channels": 6,
            "block_out_channels": (192, 384, 576, 768),
            "layers_per_block": 3,
            "attention_head_dim": 64,
            "attn_norm_num_groups": 32,
            "resnet_time_scale_shift": "scale_shift",
            "downsample_type": "resnet",
            "upsample_type": "resnet",
            "num_class_embeds": 1000,
        },
        64,
    ),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_networks_have_the_same_shapes(name):
    ours, condition, settings, size = PUBLISHED[name]
    with torch.device("meta"):
        peer = diffusers.UNet2DModel(**settings)
    # Zeros that take no memory: only their shapes matter.
    state = {k: np.broadcast_to(np.float32(0), v.shape) for k, v in peer.named_parameters()}
    like = jax.eval_shape(
        ours.init,
        jax.random.key(0),
        jnp.zeros((1, size, size, 3)),
        jnp.zeros((1,)),
        jax.tree.map(jnp.asarray, condition),
    )["params"]
    from_diffusers(state, like, levels=len(ours.multipliers), blocks=ours.blocks)


def test_the_converter_refuses_what_has_no_counterpart():
    pair = Pair("ddpm")
    state = {k: v.detach().numpy() for k, v in pair.peer.named_parameters()}
    first, *_ = state
    with pytest.raises(ValueError, match="gives nothing for"):
        pair.convert({k: v for k, v in state.items() if k != first}, pair.like)
    with pytest.raises(ValueError, match="has no counterpart"):
        pair.convert(state | {"another.weight": state[first]}, pair.like)
    with pytest.raises(ValueError, match="makes it"):
        pair.convert(state | {first: state[first][:-1]}, pair.like)
