"""Where a network that computes in bfloat16 stays in float32, and why; nowhere else.

A network's `dtype` is that of its products and activations. The float32 islands in it:

- parameters: an update of 1e-4 of a weight is below bfloat16's steps of 2^-8; layers cast them
  where they use them (Flax's `param_dtype`);
- time features (`Sinusoidal`, `Fourier`): sin(w t) of t up to 1,000 needs an angle's fraction,
  and bfloat16 has whole numbers only up to 256;
- statistics of norms: a sum of thousands of values, where bfloat16 stops counting at 256;
- the softmax: its logits, exponentials and their sum. Its products take operands of the network's
  dtype and are accumulated in float32 (`product`);
- features of conditions (corners, places) and what an encoder answers: as the time features, and
  every block reads them;
- the answer y: the sampler and the loss take differences of it.

`island` is the way into those that are computed here.

Outside of networks schedules, samplers, losses, optimizers and averages are float32 throughout.
`tests/models/test_precision.py` reads every operation of the networks and of their gradients.
"""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array


def island(x: Array) -> Array:
    """x in float32: the way into an island (float64 stays). The way out is `.astype`."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def product(subscripts: str, a: Array, b: Array) -> Array:
    """einsum of two arrays of one dtype, accumulated and answered in float32.

    Its derivatives are products of operands of that dtype too. Left to itself, JAX would multiply
    the float32 cotangent of the answer by a or b, a float32 product at the speed of one.

    >>> x = jnp.ones((2, 2), jnp.bfloat16)
    >>> product("ij,jk->ik", x, x).dtype.name
    'float32'
    """
    wide = jnp.promote_types(a.dtype, jnp.float32)
    return jnp.einsum(subscripts, a, b, preferred_element_type=wide)


@product.defjvp
def _product_jvp(subscripts, primals, tangents):
    (a, b), (da, db) = primals, tangents
    # In their own dtype, so that what comes back through the cast is a cotangent of that dtype.
    moved = jnp.einsum(subscripts, da, b) + jnp.einsum(subscripts, a, db)
    return product(subscripts, a, b), island(moved)
