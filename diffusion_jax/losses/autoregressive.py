"""The autoregressive loss: how unlikely each code is after the ones before it.

L = - E sum_i log p(code_i | code_<i, condition) / k                                        (1)
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from diffusion_jax.types import Batch, Extra, Key, Loss, Params

# (params, key, batch) -> (logits [b k v], codes [b k]), as one function so that both come from one
# draw of what is random.
Predict = Callable[[Params, Key, Batch], tuple[Float[Array, "b k v"], Int[Array, "b k"]]]


def code_loss(predict: Predict) -> Loss:
    """Equation (1), in nats a code.

    Args:
        predict: (params, key, batch) -> (logits [b k v], of which those of code i know codes
            before i alone; codes [b k]).

    Returns:
        loss(params, extra, key, batch) -> (scalar, ({"loss", "accuracy"}, extra)); accuracy is
        the share of codes that are the likeliest.

    Source: Ramesh et al. 2022 (arXiv:2204.06125), section 2.2.
    """

    def loss(params: Params, extra: Extra, key: Key, batch: Batch):
        logits, codes = predict(params, key, batch)
        value = optax.softmax_cross_entropy_with_integer_labels(logits, codes).mean()
        right = jnp.mean(jnp.argmax(logits, axis=-1) == codes)
        return value, ({"loss": value, "accuracy": jax.lax.stop_gradient(right)}, extra)

    return loss
