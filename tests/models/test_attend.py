"""Attention against a plain softmax, derivatives too, and the choice of what computes it."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.models import attend as module
from diffusion_jax.models.attend import attend, default_device, fastest
from tests.oracle import normal

KEEP = jnp.array([[True, True, True, False, False, True], [False, True, True, True, True, True]])


def arrays(dtype=jnp.float32):
    q = normal(0, 2, 4, 3, 8)
    k, v = normal(1, 2, 6, 3, 8), normal(2, 2, 6, 3, 8)
    return tuple(x.astype(dtype) for x in (3 * q, k, v))


def plain(q, k, v, keep=None):
    """One head of one example after another, in the words of the definition."""
    q, k, v = (x.astype(jnp.float32) for x in (q, k, v))

    def one(q, k, v, keep):
        logits = jnp.where(keep[None, :], q @ k.T / jnp.sqrt(q.shape[-1]), -jnp.inf)
        return jax.nn.softmax(logits, axis=-1) @ v

    heads = jax.vmap(one, in_axes=(1, 1, 1, None), out_axes=1)
    keep = jnp.ones((len(q), k.shape[1]), bool) if keep is None else keep
    return jax.vmap(heads)(q, k, v, keep)


@pytest.mark.parametrize("keep", [None, KEEP], ids=["all", "mask"])
def test_answer_and_gradient_are_those_of_a_plain_softmax(keep):
    weight = normal(3, 2, 4, 3, 8)

    def both(f):
        value, pull = jax.vjp(lambda *a: f(*a, keep), *arrays())
        return value, *pull(weight)

    for ours, reference in zip(jax.jit(lambda: both(attend))(), both(plain), strict=True):
        np.testing.assert_allclose(ours, reference, atol=1e-5)


@pytest.mark.parametrize("keep", [None, KEEP], ids=["all", "mask"])
def test_a_causal_token_reads_the_tokens_up_to_it(keep):
    """Token i alone, against the first i + 1 of the source."""
    (k, v), q = arrays()[1:], 3 * normal(4, 2, 6, 3, 8)
    y = jax.jit(lambda: attend(q, k, v, keep, causal=True))()
    for i in range(6):
        if keep is not None and not keep[:, : i + 1].any(1).all():
            continue
        told = None if keep is None else keep[:, : i + 1]
        one = plain(q[:, i : i + 1], k[:, : i + 1], v[:, : i + 1], told)
        np.testing.assert_allclose(y[:, i : i + 1], one, atol=1e-5)


def test_causal_attention_of_other_lengths_is_refused():
    with pytest.raises(ValueError, match="q has 4 and k 6"):
        attend(*arrays(), causal=True)


def test_it_can_be_differentiated_forwards():
    """The probability flow's divergence and score matching do."""
    moved = tuple(normal(4 + i, *x.shape) for i, x in enumerate(arrays()))
    _, ours = jax.jvp(attend, arrays(), moved)
    _, reference = jax.jvp(plain, arrays(), moved)
    np.testing.assert_allclose(ours, reference, atol=5e-6)


def test_half_precision_differs_by_its_rounding():
    q, k, v = arrays(jnp.bfloat16)
    weight = normal(3, 2, 4, 3, 8)
    ours, pull = jax.vjp(attend, q, k, v)
    reference, pull_reference = jax.vjp(plain, q, k, v)
    assert ours.dtype == jnp.bfloat16
    np.testing.assert_allclose(ours, reference, atol=0.03)
    found = pull(weight.astype(jnp.bfloat16))
    for a, b in zip(found, pull_reference(weight), strict=True):
        assert a.dtype == jnp.bfloat16
        np.testing.assert_allclose(a.astype(jnp.float32), b.astype(jnp.float32), atol=0.1)


def test_large_logits_stay_finite():
    q, k, v = arrays()
    y, pull = jax.vjp(attend, 1e4 * q, k, v)
    assert all(np.isfinite(x).all() for x in (y, *pull(y)))


def test_an_example_that_keeps_nothing_reads_the_mean():
    q, k, v = arrays()
    y = attend(q, k, v, KEEP.at[0].set(False))
    np.testing.assert_allclose(y[0, 0], v[0].mean(0), atol=1e-6)


@dataclasses.dataclass(frozen=True)
class Device:
    """What the choice reads of a device."""

    platform: str
    device_kind: str
    compute_capability: str | None = None


CPU = Device("cpu", "cpu")
TPU = Device("tpu", "TPU v5 lite")
AMD = Device("gpu", "AMD Instinct MI300X", "gfx942")
V100 = Device("gpu", "Tesla V100-SXM2-16GB", "7.0")
A100 = Device("gpu", "NVIDIA A100-SXM4-40GB", "8.0")
H100 = Device("gpu", "NVIDIA H100 80GB HBM3", "9.0")
B200 = Device("gpu", "NVIDIA B200", "10.0")


@pytest.mark.parametrize(
    ("device", "dtype", "channels", "masked", "chosen"),
    [
        *((device, jnp.bfloat16, 64, False, "xla") for device in (CPU, TPU, AMD, V100)),
        *((device, jnp.bfloat16, 64, False, "cudnn") for device in (A100, H100, B200)),
        (A100, jnp.float16, 128, False, "cudnn"),
        (A100, jnp.bfloat16, 256, False, "xla"),
        (H100, jnp.bfloat16, 256, False, "cudnn"),
        (H100, jnp.bfloat16, 264, False, "xla"),
        (H100, jnp.bfloat16, 36, False, "xla"),
        (H100, jnp.float32, 64, False, "xla"),
        (H100, jnp.bfloat16, 64, True, "xla"),
    ],
)
def test_the_faster_one_that_the_device_has(device, dtype, channels, masked, chosen):
    assert fastest(device, jnp.dtype(dtype), channels, masked=masked) == chosen


def test_a_device_that_was_chosen_is_the_one_that_decides():
    assert default_device() == jax.devices()[0]
    with jax.default_device(jax.devices("cpu")[-1]):
        assert default_device() == jax.devices("cpu")[-1]
    with jax.default_device("cpu"):
        assert default_device().platform == "cpu"


def test_half_precision_goes_to_cudnn_where_it_is_faster(monkeypatch):
    asked = []

    def fused(q, k, v, is_causal, implementation):
        asked.append((implementation, is_causal))
        return q

    monkeypatch.setattr(module, "default_device", lambda: H100)
    monkeypatch.setattr(jax.nn, "dot_product_attention", fused)
    q, *_ = arrays(jnp.bfloat16)
    attend(*arrays(jnp.bfloat16))
    attend(q, q, q, causal=True)
    attend(*arrays())
    attend(*arrays(jnp.bfloat16), KEEP)
    attend(*arrays(jnp.bfloat16), implementation="xla")
    assert asked == [("cudnn", False), ("cudnn", True)]


def test_the_users_word_goes_first(monkeypatch):
    monkeypatch.setattr(module, "default_device", lambda: H100)
    monkeypatch.setenv("DIFFUSION_JAX_ATTENTION", "xla")
    attend(*arrays(jnp.bfloat16))  # cuDNN would fail here
    monkeypatch.setenv("DIFFUSION_JAX_ATTENTION", "flash")
    with pytest.raises(ValueError, match=r"'flash' .*'xla' or 'cudnn'"):
        attend(*arrays())
    with pytest.raises(ValueError, match="without masks only"):
        attend(*arrays(), KEEP, implementation="cudnn")
