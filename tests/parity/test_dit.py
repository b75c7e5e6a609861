"""Our DiT is diffusers' `DiTTransformer2DModel`: same parameters, same answer and gradient."""

import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
torch = pytest.importorskip("torch", reason="needs the extra `parity`: torch")
diffusers = pytest.importorskip("diffusers", reason="needs the extra `parity`: diffusers")

from benchmarks.diffusers_dit import (  # noqa: E402
    POSITIONS,
    from_diffusers,
    one_embedding,
    settings,
    state_of,
)
from diffusion_jax.models import DiT, Sinusoidal  # noqa: E402
from diffusion_jax.types import Condition  # noqa: E402

CLASSES = 5
OURS = DiT(
    out_channels=6,
    size=12,
    patch=3,
    width=24,
    depth=3,
    heads=2,
    time_features=Sinusoidal(256, shift=1),
)


@pytest.fixture(scope="module")
def pair():
    """The peer at random parameters (a fresh one answers zeros), x, t, labels and a weight."""
    generator = torch.Generator().manual_seed(0)
    peer = diffusers.DiTTransformer2DModel(**settings(OURS, 3, CLASSES)).eval()
    one_embedding(peer)
    with torch.no_grad():
        for p in peer.parameters():
            z = torch.randn(p.shape, generator=generator)
            p.copy_(z / p[0].numel() ** 0.5 if p.ndim > 1 else 0.3 * z)
    x = torch.randn((3, 3, 12, 12), generator=generator)
    weight = torch.randn((3, 6, 12, 12), generator=generator)
    return peer, x, torch.tensor([0, 371, 999]), torch.tensor([3, 0, CLASSES]), weight


def nhwc(x) -> jax.Array:
    return jnp.asarray(x.detach().permute(0, 2, 3, 1).contiguous().numpy())


def ours(params, x, t, labels):
    told = Condition(vector=jax.nn.one_hot(jnp.asarray(labels.numpy()), CLASSES + 1))
    return OURS.apply({"params": params}, nhwc(x), jnp.asarray(t.numpy(), jnp.float32), told)


def like(x, t):
    told = Condition(vector=jnp.zeros((len(x), CLASSES + 1)))
    times = jnp.zeros(len(t))
    return jax.eval_shape(OURS.init, jax.random.key(0), nhwc(x), times, told)["params"]


def difference(a, b, floor=0.0) -> float:
    """The largest difference, relative to the largest value, or to `floor` where that is more."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    assert a.shape == b.shape
    return float(np.abs(a - b).max() / max(np.abs(b).max(), floor))


def test_same_parameters_give_the_same_answer(pair):
    peer, x, t, labels, _ = pair
    with torch.no_grad():
        theirs = nhwc(peer(x, t, labels).sample)
    params = from_diffusers(state_of(peer), like(x, t), OURS.depth)
    found = jax.jit(lambda p: ours(p, x, t, labels))(params)
    assert float(theirs.std()) > 0.1
    assert difference(found[:1], theirs[1:2]) > 0.1
    assert difference(found, theirs) < 1e-5


def test_same_parameters_give_the_same_gradient(pair):
    peer, x, t, labels, weight = pair
    peer.zero_grad()
    (peer(x, t, labels).sample * weight).sum().backward()
    state = state_of(peer)
    params = from_diffusers(state, like(x, t), OURS.depth)
    gradients = {name: p.grad.numpy() for name, p in peer.named_parameters()}
    gradients[POSITIONS] = np.zeros_like(state[POSITIONS])
    theirs = from_diffusers(gradients, like(x, t), OURS.depth)
    found = jax.jit(jax.grad(lambda p: (ours(p, x, t, labels) * nhwc(weight)).sum()))(params)
    for tree in (found, theirs):  # they aren't trained there
        del tree["positions"], tree["vector"]["bias"]
    floor = 1e-2 * max(float(np.abs(leaf).max()) for leaf in jax.tree.leaves(theirs))
    for (path, a), b in zip(jax.tree.leaves_with_path(found), jax.tree.leaves(theirs), strict=True):
        assert difference(a, b, floor) < 5e-5, jax.tree_util.keystr(path)


def test_the_converter_refuses_what_has_no_counterpart(pair):
    peer, x, t, *_ = pair
    state, wanted = state_of(peer), like(x, t)
    first, *_ = state
    with pytest.raises(ValueError, match="there is no"):
        from_diffusers({k: v for k, v in state.items() if k != first}, wanted, OURS.depth)
    with pytest.raises(ValueError, match="have no counterpart"):
        from_diffusers(state | {"another.weight": state[first]}, wanted, OURS.depth)
    with pytest.raises(ValueError, match="and diffusers'"):
        from_diffusers(state | {first: state[first][:-1]}, wanted, OURS.depth)
