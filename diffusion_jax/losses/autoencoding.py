"""The terms of a codec's loss: what its reconstructions lose, and what its latents cost.

A variational autoencoder's bound, for q(z | x) = N(m, diag s^2) and the prior N(0, 1),

    -log P(x) <= E_q -log p(x | z) + KL,   KL = 1/2 sum (m^2 + s^2 - 1 - log s^2),          (1)

and beta KL in place of KL in a beta-VAE. Of a vector-quantised one, with e the code of z,

    codebook |stop(z) - e|^2,   commitment |z - stop(e)|^2,                                 (2)

and for every code k that has gone out of use, with z the batch's answer nearest to it,

    revival |e_k - stop(z)|^2.                                                              (3)

The usage u of the codes is a running mean of n_k K / n: 1 for a code that is drawn as often as
the average one. In (3) the nearest answer, because it stays the same from batch to batch: towards
answers drawn anew each time all lost codes would walk to the mean. No code moves but by its
gradient, so training stays a pure function of parameters, Extra and batch. The perceptual
distance of features f_l of a fixed network, normalised over their channels,

    d = sum_l mean_places sum_channels w_l (f_l(x) - f_l(y))^2.                             (4)

Sources: Kingma & Welling 2014 (arXiv:1312.6114), appendix B; Higgins et al. 2017 (beta-VAE);
van den Oord et al. 2017 (arXiv:1711.00937), equation (3); Zheng & Vedaldi 2023
(arXiv:2307.15139), whose anchors, the nearest answers, (3) takes, though as a loss; Zhang et al.
2018 (arXiv:1801.03924), equation (1), with w_l = 1 unless weights are given.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from diffusion_jax.likelihood.pixels import bits_per_dimension
from diffusion_jax.types import Batch, Extra, Key, Loss, Metrics, Params, Scalar

Maps = Sequence[Float[Array, "b ..."]]  # features [b h w c] of several layers
Usage = Float[Array, " k"]


def kl_to_standard_normal(
    mean: Float[Array, "b ..."], log_variance: Float[Array, "b ..."]
) -> Float[Array, " b"]:
    """KL of equation (1) in nats, summed over each example; exact."""
    terms = 0.5 * (mean**2 + jnp.exp(log_variance) - 1 - log_variance)
    return terms.reshape(len(mean), -1).sum(1)


def absolute_error(x: Float[Array, "b ..."], y: Float[Array, "b ..."]) -> Float[Array, " b"]:
    """Mean |x - y| of each example."""
    return jnp.abs(x - y).reshape(len(x), -1).mean(1)


def squared_error(x: Float[Array, "b ..."], y: Float[Array, "b ..."]) -> Float[Array, " b"]:
    """Mean (x - y)^2 of each example."""
    return jnp.square(x - y).reshape(len(x), -1).mean(1)


def perceptual_distance(
    x: Maps, y: Maps, weights: Sequence[Array] | None = None
) -> Float[Array, " b"]:
    """Equation (4).

    Args:
        x, y: the features of two batches of pictures, layer by layer.
        weights: w_l >= 0 of each layer's channels, [c] each; 1 by default.

    Raises:
        ValueError: the numbers of layers differ.
    """
    if len(x) != len(y) or not x or (weights is not None and len(weights) != len(x)):
        said = "" if weights is None else f" and {len(weights)} weights"
        raise ValueError(f"features of {len(x)} and {len(y)} layers{said} can't be compared.")
    total = jnp.zeros(len(x[0]))
    for i, (a, b) in enumerate(zip(x, y, strict=True)):
        gaps = jnp.square(_normalised(a) - _normalised(b))
        if weights is not None:
            gaps = gaps * weights[i].reshape((1,) * (a.ndim - 1) + (-1,))
        total = total + gaps.sum(-1).reshape(len(a), -1).mean(1)
    return total


def _normalised(f: Float[Array, "*place c"]) -> Float[Array, "*place c"]:
    """Of length 1 over the channels; 0 stays 0, and its gradient is finite."""
    f = f.astype(jnp.float32)
    return f * jax.lax.rsqrt(jnp.sum(f**2, axis=-1, keepdims=True) + 1e-10)


def quantisation(
    z: Float[Array, "b *place d"], vectors: Float[Array, "b *place d"]
) -> tuple[Array, Array]:
    """Codebook and commitment of equation (2), means over all entries, of equal value.

    Only the codes learn from the first, and only the encoder from the second.
    """
    stop = jax.lax.stop_gradient
    return jnp.mean((stop(z) - vectors) ** 2), jnp.mean((z - stop(vectors)) ** 2)


def init_usage(codes: int) -> Usage:
    """As if all codes had been drawn alike."""
    return jnp.ones(codes)


def update_usage(usage: Usage, codes: Int[Array, "*place"], decay: Scalar = 0.99) -> Usage:
    """decay u + (1 - decay) n_k K / n, of codes that a batch drew."""
    counts = jnp.zeros_like(usage).at[codes.reshape(-1)].add(1.0)
    return decay * usage + (1 - decay) * counts * (len(usage) / codes.size)


def usage_metrics(usage: Usage, dead: Scalar = 0.01) -> Metrics:
    """{"perplexity", "codes_used"}: exp of the usage's entropy, and the share of u >= dead.

    >>> {name: round(float(x), 3) for name, x in usage_metrics(init_usage(8)).items()}
    {'perplexity': 8.0, 'codes_used': 1.0}
    """
    entropy = jax.scipy.special.entr(usage / usage.sum()).sum()
    return {"perplexity": jnp.exp(entropy), "codes_used": jnp.mean(usage >= dead)}


def revival(
    codebook: Float[Array, "k d"],
    z: Float[Array, "*place d"],
    usage: Usage,
    dead: Scalar = 0.01,
) -> Array:
    """Equation (3): mean over entries of the codes whose usage is below `dead`, else 0.

    Args:
        codebook: e.
        z: the encoder's answers in the batch; they get no gradient.
        usage: u.
        dead: a code is lost that is drawn so many times as often as the average one.
    """
    z = jax.lax.stop_gradient(z.reshape(-1, z.shape[-1]))
    lost = usage < dead
    product = jnp.matmul(jax.lax.stop_gradient(codebook), z.T)
    nearest = jnp.argmin(jnp.sum(z**2, axis=1)[None, :] - 2 * product, axis=1)
    gaps = jnp.mean((codebook - z[nearest]) ** 2, axis=1)
    return jnp.sum(jnp.where(lost, gaps, 0.0)) / jnp.maximum(jnp.sum(lost), 1)


def bound_loss(
    encode: Callable[[Params, Array], Any],
    log_likelihood: Callable[[Params, Array, Array], Float[Array, " b"]],
    beta: Scalar = 1.0,
) -> Loss:
    """Equation (1), in bits a dimension of the pictures.

    Args:
        encode: (params, x) -> the posterior, with `mean`, `log_variance` and `sample(key)`.
        log_likelihood: (params, z, x) -> log p(x | z) [b] in nats.
        beta: what the KL weighs; 1 is the bound.

    Returns:
        loss(params, extra, key, batch) -> (scalar, ({"loss", "bound", "distortion", "rate",
        "kl_nats"}, extra)): the bound is distortion + rate whatever beta, in bits a dimension;
        "kl_nats" is the rate in nats a picture.

    Sources: as of (1); distortion and rate are the names of Alemi et al. 2018
    (arXiv:1711.00464).
    """

    def loss(params: Params, extra: Extra, key: Key, batch: Batch):
        x = batch["image"]
        posterior = encode(params, x)
        nats = jnp.mean(kl_to_standard_normal(posterior.mean, posterior.log_variance))
        said = -jnp.mean(log_likelihood(params, posterior.sample(key), x))
        distortion, rate = (bits_per_dimension(v, x[0].size) for v in (said, nats))
        value = distortion + beta * rate
        metrics = {"loss": value, "bound": distortion + rate, "kl_nats": nats}
        return value, ({**metrics, "distortion": distortion, "rate": rate}, extra)

    return loss
