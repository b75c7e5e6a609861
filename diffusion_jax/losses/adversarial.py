"""Two players in one loss: a codec that draws pictures, and a discriminator that judges them.

The discriminator's logits are high where it takes a picture, or a patch of it, to be real.

    hinge            D: 1/2 E [relu(1 - d(x)) + relu(1 + d(y))],      G: -E d(y)            (1)
    non-saturating   D: 1/2 E [softplus(-d(x)) + softplus(d(y))],     G: E softplus(-d(y))  (2)

The codec's loss is distance + lambda weight G, with lambda the ratio of what both would do to
the last layer W of the decoder,

    lambda = |d distance / dW| / (|d G / dW| + delta),                                      (3)

delta = 1e-4, held constant in the gradient, and at most `most`. The sum of both players' losses
is trained in one step: D sees y without its gradient and G sees d without that of its parameters,
so that each player's gradient is that of its own loss.

Sources: Goodfellow et al. 2014 (arXiv:1406.2661); Lim & Ye 2017 (arXiv:1705.02894) for (1);
Esser et al. 2021 (arXiv:2012.09841), equations (6) and (7), with its start step.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from diffusion_jax.types import Batch, Extra, Key, Loss, Metrics, Params, Scalar

Logits = Float[Array, "b ..."]


class Game(NamedTuple):
    """Both players' losses.

    Attributes:
        discriminator: (logits of real pictures, of drawn ones) -> scalar.
        generator: logits of drawn pictures -> scalar.
    """

    discriminator: Callable[[Logits, Logits], Array]
    generator: Callable[[Logits], Array]


def hinge() -> Game:
    """Equation (1)."""

    def discriminator(real: Logits, drawn: Logits) -> Array:
        return 0.5 * (jnp.mean(jax.nn.relu(1 - real)) + jnp.mean(jax.nn.relu(1 + drawn)))

    return Game(discriminator, lambda drawn: -jnp.mean(drawn))


def non_saturating() -> Game:
    """Equation (2)."""

    def discriminator(real: Logits, drawn: Logits) -> Array:
        return 0.5 * (jnp.mean(jax.nn.softplus(-real)) + jnp.mean(jax.nn.softplus(drawn)))

    return Game(discriminator, lambda drawn: jnp.mean(jax.nn.softplus(-drawn)))


def adaptive_weight(distance: Any, generator: Any, most: Scalar = 1e4) -> Array:
    """lambda of equation (3), from the two gradients of W (any pytrees); without a gradient."""
    ratio = optax.tree.norm(distance) / (optax.tree.norm(generator) + 1e-4)
    return jax.lax.stop_gradient(jnp.clip(ratio, 0.0, most))


class Latents(NamedTuple):
    """What an encoder made of a batch.

    Attributes:
        z: what the decoder reads.
        penalty: added to the loss: the KL, or the codebook's terms, weighed.
        metrics: of it.
        extra: the encoder's own, such as a codebook's usage.
    """

    z: Array
    penalty: Array
    metrics: Metrics
    extra: Extra = ()


class CodecExtra(NamedTuple):
    """What a codec's loss carries from step to step.

    Attributes:
        calls: of the loss so far, int32: one a step, or a micro-batch.
        encoder: the encoder's own, such as a codebook's usage.
        judge: parameters of the perceptual distance's network; they never change.
    """

    calls: Array
    encoder: Extra = ()
    judge: Any = ()


def init_codec_extra(encoder: Extra = (), judge: Any = ()) -> CodecExtra:
    """Before the first step."""
    return CodecExtra(jnp.zeros((), jnp.int32), encoder, judge)


@dataclass(frozen=True, kw_only=True)
class Adversary:
    """The second player.

    Attributes:
        score: (its parameters, pictures) -> logits.
        game: both players' losses.
        weight: of G, beside lambda.
        start: how many calls of the loss come before the players meet; until then the
            discriminator stays as it was.
        last: where W lies among the codec's parameters.
        most: of lambda.
    """

    score: Callable[[Params, Array], Logits]
    game: Game = hinge()
    weight: float = 1.0
    start: int = 0
    last: tuple[str, ...] = ("decoder", "conv_out", "kernel")
    most: float = 1e4


def codec_loss(
    encode: Callable[[Params, Extra, Key, Array], Latents],
    decode: Callable[[Params, Array], Array],
    distance: Callable[[Any, Array, Array], tuple[Array, Metrics]],
    adversary: Adversary | None = None,
) -> Loss:
    """The loss of a codec, and of the discriminator that it plays against.

    Args:
        encode: (params, the encoder's own extra, key, pictures) -> latents.
        decode: (params, z) -> pictures.
        distance: (judge, pictures, reconstructions) -> (scalar, metrics).
        adversary: the second player; None has one player.

    Returns:
        loss(params, extra, key, batch) -> (scalar, (metrics, extra)). params are {"codec"}, and
        "discriminator" where there is an adversary; extra is a `CodecExtra`. The metric "loss" is
        distance + penalty, which falls before and after the start alike; the scalar, whose
        gradient is taken, adds both players'.
    """

    def loss(params: Params, extra: CodecExtra, key: Key, batch: Batch):
        x, codec = batch["image"], params["codec"]
        latents = encode(codec, extra.encoder, key, x)
        after = CodecExtra(extra.calls + 1, latents.extra, extra.judge)
        if adversary is None:
            far, said = distance(extra.judge, x, decode(codec, latents.z))
            value = far + latents.penalty
            return value, ({"loss": value, **said, **latents.metrics}, after)

        def decode_by(w: Array) -> Array:
            return decode(_with(codec, adversary.last, w), latents.z)

        # The pullback is of the last layer alone; the pictures know all parameters.
        y, pull = jax.vjp(decode_by, _at(codec, adversary.last))
        far, pull_far, said = jax.vjp(lambda y: distance(extra.judge, x, y), y, has_aux=True)
        judge = jax.lax.stop_gradient(params["discriminator"])
        fooled, pull_fooled = jax.vjp(
            lambda y: adversary.game.generator(adversary.score(judge, y)), y
        )
        one = jnp.ones(())
        balance = adaptive_weight(pull(*pull_far(one)), pull(*pull_fooled(one)), adversary.most)

        def score(pictures: Array) -> Logits:
            return adversary.score(params["discriminator"], jax.lax.stop_gradient(pictures))

        real, drawn = score(x), score(y)
        caught = adversary.game.discriminator(real, drawn)
        on = jnp.where(extra.calls >= adversary.start, 1.0, 0.0)
        value = far + latents.penalty
        total = value + on * (balance * adversary.weight * fooled + caught)
        metrics = {
            "loss": value,
            **said,
            **latents.metrics,
            "generator": fooled,
            "discriminator": caught,
            "lambda": balance,
            "logit_real": jnp.mean(real),
            "logit_drawn": jnp.mean(drawn),
        }
        return total, (metrics, after)

    return loss


def _at(tree: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        tree = tree[name]
    return tree


def _with(tree: Any, path: tuple[str, ...], leaf: Any) -> Any:
    """The tree with another leaf there."""
    if not path:
        return leaf
    return {**tree, path[0]: _with(tree[path[0]], path[1:], leaf)}
