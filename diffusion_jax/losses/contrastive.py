"""Contrastive losses: which picture belongs to which caption, over the whole batch.

With unit embeddings x_i of pictures and y_i of captions, and logits l_ij = e^s x_i . y_j,

    softmax   L = 1/(2N) sum_i [ log sum_j e^{l_ij} - l_ii + log sum_j e^{l_ji} - l_ii ]      (1)
    sigmoid   L = -1/N sum_ij log sigmoid(z_ij (l_ij + b)),  z_ij = 2 [i = j] - 1             (2)

The batch is the global one: under `jit` arrays are whole, wherever their parts lie. Each device
keeps the rows of its own pictures against all captions; captions are gathered, and their gradients
come back summed, by the compiler. In chunks of captions no more than [N, chunk] logits exist at a
time, forwards and backwards.

Sources: Radford et al. 2021, CLIP (arXiv:2103.00020), section 2.3 and figure 3; Zhai et al. 2023,
SigLIP (arXiv:2303.15343), equation (1).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffusion_jax.types import Batch, Extra, Key, Loss, Metrics, Params


class Pairs(NamedTuple):
    """A batch of pictures and captions as a model embeds them; row i of both is one pair.

    Attributes:
        image: [b d], of unit length.
        text: [b d], of unit length.
        scale: e^s of the logits, a scalar.
        bias: b of equation (2), a scalar; None in a model for equation (1).
    """

    image: Float[Array, "b d"]
    text: Float[Array, "b d"]
    scale: Array
    bias: Array | None = None


Objective = Callable[[Pairs], tuple[Array, Metrics]]


def softmax_objective(pairs: Pairs, *, chunk: int | None = None) -> tuple[Array, Metrics]:
    """Equation (1), and how often a row's and a column's largest logit is the pair's own.

    Args:
        pairs: of the global batch.
        chunk: captions at a time; it divides the batch. None is all at once.

    Returns:
        The loss in nats, and {"image_to_text", "text_to_image"}: top-1 accuracies in the batch.

    Raises:
        ValueError: the embeddings aren't [b d] both, there are none, scale or bias isn't a scalar,
            or `chunk` doesn't divide b.
    """

    def add(carry: tuple[Array, Array], logits: Array, same: Array):
        """The rows' log sum so far, as its largest logit and the sum of exp(l - largest)."""
        highest, total = carry
        higher = jnp.maximum(highest, jax.lax.stop_gradient(logits.max(1)))
        total = total * jnp.exp(highest - higher) + jnp.exp(logits - higher[:, None]).sum(1)
        return (higher, total), jax.nn.logsumexp(logits, axis=0)

    b = len(pairs.image)
    start = (jnp.full((b,), -jnp.inf), jnp.zeros((b,)))
    (highest, total), columns, own, accuracies = _over_captions(pairs, chunk, start, add)
    rows = highest + jnp.log(total)
    return 0.5 * jnp.mean(rows + columns - 2 * own), accuracies


def sigmoid_objective(pairs: Pairs, *, chunk: int | None = None) -> tuple[Array, Metrics]:
    """Equation (2): each pair is a yes or a no of its own.

    Args, Returns and Raises: as of `softmax_objective`; b is 0 where the pairs have no bias.
    """
    bias = jnp.zeros(()) if pairs.bias is None else pairs.bias

    def add(total: Array, logits: Array, same: Array):
        sign = jnp.where(same, 1.0, -1.0)
        return total - jax.nn.log_sigmoid(sign * (logits + bias)).sum(), ()

    total, _, _, accuracies = _over_captions(pairs, chunk, jnp.zeros(()), add)
    return total / len(pairs.image), accuracies


def contrastive_loss(
    embed: Callable[[Params, Key, Batch], Pairs], objective: Objective = softmax_objective
) -> Loss:
    """The loss of a batch of pictures and their captions.

    Args:
        embed: (params, key, batch) -> the batch's embeddings.
        objective: `softmax_objective` or `sigmoid_objective`, with a chunk by `functools.partial`.

    Returns:
        loss(params, extra, key, batch) -> (scalar, ({"loss", "scale", ...}, extra)); the metrics
        are the objective's too.
    """

    def loss(params: Params, extra: Extra, key: Key, batch: Batch):
        pairs = embed(params, key, batch)
        value, accuracies = objective(pairs)
        return value, ({"loss": value, "scale": pairs.scale, **accuracies}, extra)

    return loss


def _over_captions(pairs: Pairs, chunk: int | None, start: Any, add: Callable) -> Any:
    """Folds `add` over logits [b chunk], which are computed again for the gradient.

    Args:
        pairs: of the global batch.
        chunk: captions at a time; None is all.
        start: what is carried.
        add: (carry, logits, same) -> (carry, what is said of each of the captions); `same` marks
            the pairs.

    Returns:
        The last carry; what was said of the captions, [b ...]; the pairs' own logits [b]; and how
        often these are the largest of their row and column.
    """
    b, size = _sizes(pairs, chunk)
    image, number = pairs.image * pairs.scale, jnp.arange(b)
    own = jnp.sum(image * pairs.text, axis=-1)

    def step(carry, part):
        inner, rival = carry
        text, place = part
        # Exact, as the sum above is: e^s up to 100 would make 0.2 of bfloat16's rounding.
        logits = jnp.einsum("id,jd->ij", image, text, precision=jax.lax.Precision.HIGHEST)
        same = number[:, None] == place[None, :]
        others = jax.lax.stop_gradient(jnp.where(same, -jnp.inf, logits))
        inner, said = add(inner, logits, same)
        return (inner, jnp.maximum(rival, others.max(1))), (said, others.max(0))

    parts = jax.tree.map(lambda x: x.reshape(b // size, size, *x.shape[1:]), (pairs.text, number))
    begun = (start, jnp.full((b,), -jnp.inf))
    (carry, rival), (said, above) = jax.lax.scan(jax.checkpoint(step), begun, parts)
    said, above = jax.tree.map(lambda x: x.reshape(b, *x.shape[2:]), (said, above))
    accuracies = {"image_to_text": jnp.mean(own > rival), "text_to_image": jnp.mean(own > above)}
    return carry, said, own, accuracies


def _sizes(pairs: Pairs, chunk: int | None) -> tuple[int, int]:
    """Of the batch, and of a chunk of it."""
    image, text = pairs.image, pairs.text
    if image.ndim != 2 or image.shape != text.shape or not len(image):
        raise ValueError(
            f"embeddings of pictures {image.shape} and captions {text.shape} must be [b d] both, "
            "with b at least 1."
        )
    for name, value in (("scale", pairs.scale), ("bias", pairs.bias)):
        if value is not None and jnp.ndim(value):  # it would be broadcast
            raise ValueError(f"the {name} of logits must be a scalar, not {jnp.shape(value)}.")
    b = image.shape[0]
    size = b if chunk is None else min(chunk, b)
    if size < 1 or b % size:
        raise ValueError(f"captions are read {chunk} at a time, which doesn't divide {b}.")
    return b, size
