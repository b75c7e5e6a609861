"""Optimizers for recipes: learning rate -> transformation, gradients clipped by their norm first.

They differ in what they keep for each parameter: 8 bytes (Adam, AdamW), 6 (its first moment in
bfloat16), or 2 and a little (factored). `benchmarks/optimizer_memory.py` counts them.
"""

import jax
import jax.numpy as jnp
import optax


def adam(
    learning_rate: optax.ScalarOrSchedule, clip_norm: float = 1.0
) -> optax.GradientTransformation:
    """Adam on gradients whose norm over all parameters is clipped."""
    return optax.chain(optax.clip_by_global_norm(clip_norm), optax.adam(learning_rate))


def adamw(
    learning_rate: optax.ScalarOrSchedule,
    clip_norm: float = 1.0,
    weight_decay: float = 0.01,
    b2: float = 0.999,
    epsilon: float = 1e-8,
) -> optax.GradientTransformation:
    """Adam whose weights of two or more axes also shrink, by learning rate * weight_decay a step.

    Source: Loshchilov & Hutter 2019 (arXiv:1711.05101).
    """
    decayed = optax.adamw(
        learning_rate, b2=b2, eps=epsilon, weight_decay=weight_decay, mask=_matrices
    )
    return optax.chain(optax.clip_by_global_norm(clip_norm), decayed)


def adam_bfloat16(
    learning_rate: optax.ScalarOrSchedule, clip_norm: float = 1.0
) -> optax.GradientTransformation:
    """Adam that keeps its first moment in bfloat16.

    The second stays float32: a step of 1 - b2 = 0.001 of it would be lost in bfloat16.
    """
    kept = optax.adam(learning_rate, mu_dtype=jnp.bfloat16)
    return optax.chain(optax.clip_by_global_norm(clip_norm), kept)


# v_ij = r_i c_j / mean(r), of the rows' and columns' running means r and c of g_ij^2          (1)
def adafactor(
    learning_rate: optax.ScalarOrSchedule, clip_norm: float = 1.0
) -> optax.GradientTransformation:
    """Adam's step with the second moment of a matrix factored, (1), and bfloat16 momentum.

    Matrices of fewer than 128 rows or columns, and vectors, keep all of their second moment. The
    learning rate is absolute, as Adam's, not in units of the parameters; each leaf's step before
    it has a root mean square of at most 1.

    Source: Shazeer & Stern 2018 (arXiv:1804.04235), algorithm 4; momentum and rate as in Zhai et
    al. 2022 (arXiv:2106.04560), section 3.4.
    """
    factored = optax.adafactor(
        learning_rate,
        multiply_by_parameter_scale=False,
        momentum=0.9,
        dtype_momentum=jnp.bfloat16,
    )
    return optax.chain(optax.clip_by_global_norm(clip_norm), factored)


def adam_of_players(
    learning_rate: optax.ScalarOrSchedule,
    clip_norm: float = 1.0,
    b1: float = 0.5,
    b2: float = 0.9,
    ratio: float = 1.0,
) -> optax.GradientTransformation:
    """An Adam for params["codec"] and one for params["discriminator"], each with its own clipping.

    One norm over both would let either player's gradient slow the other's steps.

    Args:
        learning_rate: of the codec.
        clip_norm: of each player's gradient.
        b1, b2: short memories, because the other player moves too.
        ratio: the discriminator's learning rate, in units of the codec's.

    Source of b1 and b2: Esser et al. 2021 (arXiv:2012.09841), the published configurations.
    """

    def of(scale: float) -> optax.GradientTransformation:
        adam = optax.adam(learning_rate, b1=b1, b2=b2)
        return optax.chain(optax.clip_by_global_norm(clip_norm), adam, optax.scale(scale))

    def names(params: optax.Params) -> optax.Params:
        return {name: name for name in params}

    return optax.partition({"codec": of(1.0), "discriminator": of(ratio)}, names)


def warmed_up_cosine(peak: float, steps: int, warmup: int = 100) -> optax.Schedule:
    """From 0 to the peak in `warmup` steps (a tenth of all at most), then to 0 as a cosine.

    >>> rate = warmed_up_cosine(1e-3, 1000)
    >>> [round(float(rate(step)), 6) for step in (0, 50, 100, 550, 1000)]
    [0.0, 0.0005, 0.001, 0.0005, 0.0]
    """
    return optax.warmup_cosine_decay_schedule(0.0, peak, min(warmup, steps // 10), steps)


def _matrices(params: optax.Params) -> optax.Params:
    """True for leaves of two or more axes; gains and biases don't decay."""
    return jax.tree.map(lambda p: p.ndim > 1, params)
