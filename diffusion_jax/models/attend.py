"""softmax(q k^T / sqrt(d)) v: the one place that knows what computes it fastest, and on what.

cuDNN's fused kernel never writes the n x n weights to memory, and takes half precision, heads of
8, 16, ... channels and no mask but the causal one, on NVIDIA GPUs from Ampere on. XLA takes
everything everywhere.
"""

import functools
import os
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from diffusion_jax.models.precision import product

Implementation = Literal["xla", "cudnn"]
VARIABLE = "DIFFUSION_JAX_ATTENTION"


def attend(
    q: Float[Array, "b t heads d"],
    k: Float[Array, "b s heads d"],
    v: Float[Array, "b s heads d"],
    keep: Bool[Array, "b s"] | None = None,
    *,
    causal: bool = False,
    implementation: Implementation | None = None,
) -> Float[Array, "b t heads d"]:
    """softmax(q k^T / sqrt(d)) v for each head; the softmax is float32.

    Args:
        q, k, v: of one dtype.
        keep: which of the s are read, all by default. Where an example keeps none, the answer is
            the mean of v.
        causal: token i reads those up to i, of as many.
        implementation: "xla" or "cudnn"; by default what `DIFFUSION_JAX_ATTENTION` says, and
            without it the faster one that the device has for these arrays. The device is the one
            that JAX computes on by default; set the variable to compile for another one. cuDNN's
            can't be differentiated forwards (`jax.jvp`).

    Raises:
        ValueError: the implementation has another name, or is cuDNN's with a mask, for which it
            has given wrong shapes (jax issue 28974); causal, and k has another length than q.

    Source: Vaswani et al. 2017 (arXiv:1706.03762), section 3.2.1.
    """
    if causal and q.shape[1] != k.shape[1]:
        raise ValueError(
            f"causal attention is of tokens to themselves; q has {q.shape[1]} and k {k.shape[1]}."
        )
    chosen = implementation or os.environ.get(VARIABLE)
    if not chosen:
        chosen = fastest(default_device(), q.dtype, q.shape[-1], masked=keep is not None)
    if chosen == "xla":
        return by_xla(q, k, v, keep, causal=causal)
    if chosen != "cudnn":
        raise ValueError(f"attention by {chosen!r} ({VARIABLE}); it is 'xla' or 'cudnn'.")
    if keep is not None:
        raise ValueError("cuDNN's attention is used without masks only; this one has one.")
    return jax.nn.dot_product_attention(q, k, v, is_causal=causal, implementation="cudnn")


# exp(s - max s) v / sum exp(s - max s),  s = q k^T / sqrt(d)                                  (1)
def by_xla(
    q: Array, k: Array, v: Array, keep: Array | None = None, *, causal: bool = False
) -> Array:
    """Equation (1): the sum divides the d channels of the answer, not the s weights."""
    scale = q.shape[-1] ** -0.5
    q, k, v = (jnp.swapaxes(x, 1, 2) for x in (q, k, v))
    logits = product("bntd,bnsd->bnts", q, k)
    if keep is not None:
        logits = jnp.where(keep[:, None, None, :], logits, -1e30)
    if causal:
        past = jnp.tri(q.shape[2], dtype=bool)
        logits = jnp.where(past[None, None], logits, -1e30)
    highest = jax.lax.stop_gradient(logits.max(-1, keepdims=True))
    weights = jnp.exp(scale * (logits - highest))
    y = product("bnts,bnsd->bntd", weights.astype(v.dtype), v)
    y = y / weights.sum(-1, keepdims=True)
    return jnp.swapaxes(y.astype(v.dtype), 1, 2)


def fastest(device: Any, dtype: Any, channels: int, *, masked: bool) -> Implementation:
    """The faster implementation that a device has for heads of so many channels."""
    if masked or dtype not in (jnp.bfloat16, jnp.float16) or channels % 8:
        return "xla"
    capability = getattr(device, "compute_capability", "")
    most = _most_channels(device.platform, str(capability))
    return "cudnn" if channels <= most else "xla"


@functools.cache
def _most_channels(platform: str, capability: str) -> int:
    """Of a head in cuDNN's fused attention: 128 from Ampere (8.0) on, 256 from Hopper (9.0) on."""
    numbers = capability.split(".")
    if platform not in ("gpu", "cuda") or len(numbers) != 2 or not all(map(str.isdigit, numbers)):
        return 0  # not NVIDIA's: an AMD GPU's capability is a name
    major = int(numbers[0])
    return 256 if major >= 9 else 128 if major == 8 else 0


def default_device() -> Any:
    """The device that computations go to unless they are told otherwise."""
    chosen = jax.config.jax_default_device  # type: ignore[attr-defined]
    if chosen is None:
        return jax.devices()[0]
    return jax.devices(chosen)[0] if isinstance(chosen, str) else chosen
