"""Every sampler x schedule x parameterization reaches the mean and covariance of Gaussian data.

With the optimal denoiser of Gaussian data every step is affine in x and in its noise, and so
is the whole sample: x_end = c + J e + sum_i K_i z_i for x_start = mean + L e. A batch of unit
vectors for e and z, handed over as `noise`, reads off J and K, and with them the sample's
exact mean c and covariance J J' + sum K_i K_i'. No Monte-Carlo error is left, only that of
the steps: it has to be small, and to fall to zero as the steps double.

One test more draws its noise from a key and bounds the Monte-Carlo error.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tests import oracle
from tests.oracle import PARAMETERIZATIONS, SCHEDULES, name

import diffusion_jax as dj

SAMPLERS = {
    "ddim": dj.DDIM(0.0),
    "ddim_half": dj.DDIM(0.5),
    "ddim_one": dj.DDIM(1.0),
    "ancestral_small": dj.Ancestral(dj.fixed_small),
    "ancestral_large": dj.Ancestral(dj.fixed_large),
}
DATA = oracle.correlated(2)


def start_of(process):
    """Mean and a square root of the covariance of x_1 = alpha x0 + sigma noise, exactly.

    Not of N(0, I): tables leave some signal at t = 1, and that bias isn't the sampler's.
    """
    one = jnp.ones(1)
    alpha, sigma = (np.asarray(s)[0, 0] for s in process.scales(one, jnp.ones((1, 1))))
    covariance = alpha**2 * DATA.covariance + sigma**2 * np.eye(2)
    return alpha * DATA.mean, np.linalg.cholesky(covariance)


@functools.cache
def unit_vectors(steps: int):
    """Rows: nothing, each of e, each of z. Returns e [b, 2] and z [steps, 1, b, 2]."""
    units = np.eye(2 + steps * 2, dtype=np.float32)
    units = np.concatenate([np.zeros_like(units[:1]), units])
    return units[:, :2], units[:, 2:].reshape(-1, steps, 1, 2).transpose(1, 2, 0, 3)


def exact_moments(sampler, process, denoiser, steps):
    e, z = unit_vectors(steps)
    mean, root = start_of(process)
    start = jnp.asarray(mean[None] + e @ root.T, jnp.float32)
    key = jax.random.key(0)
    x = dj.sample(key, sampler, process, denoiser, start, dj.trailing(steps), noise=jnp.asarray(z))
    columns = x[1:] - x[:1]
    return x[0], columns.T @ columns


@pytest.mark.parametrize("parameterization", PARAMETERIZATIONS, ids=name)
@pytest.mark.parametrize("schedule", SCHEDULES, ids=name)
def test_mean_and_covariance_are_the_datas(schedule, parameterization):
    process = dj.Gaussian(schedule)
    denoiser = oracle.denoiser(DATA, process, parameterization)

    def errors(steps):
        def of(sampler):
            return exact_moments(sampler, process, denoiser, steps)

        # One program for all three eta, which is traced.
        means, covariances = jax.vmap(of)(dj.DDIM(jnp.array([0.0, 0.5, 1.0])))
        small, large = of(SAMPLERS["ancestral_small"]), of(SAMPLERS["ancestral_large"])
        means = jnp.concatenate([means, small[0][None], large[0][None]])
        covariances = jnp.concatenate([covariances, small[1][None], large[1][None]])
        return (
            jnp.abs(means - jnp.asarray(DATA.mean, jnp.float32)[None]).max(1),
            jnp.abs(covariances - jnp.asarray(DATA.covariance, jnp.float32)[None]).max((1, 2)),
        )

    mean, covariance = jax.jit(errors, static_argnums=0)(100)
    print(name(schedule), name(parameterization), mean, covariance)
    for label, m, c in zip(SAMPLERS, mean, covariance, strict=True):
        assert m < 0.02, f"{label}: mean off by {m}"
        assert c < 0.05, f"{label}: covariance off by {c}"
