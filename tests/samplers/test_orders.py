"""Order of convergence on a mixture: twice the steps divide the error by 2 to the order.

In float64, on the cosine schedule, over a grid uniform in log-SNR (near alpha = 0 the order
isn't visible). The reference is the classical Runge-Kutta method with 2,000 steps in
l = log(alpha / sigma), where d(x / alpha)/dl = -exp(-l) noise.

A multistep solver's first step is DDIM, whose error is of the second order in h. It is small
where the grid starts in noise that hides the data, so the mixture's deviation, 0.43 in all, is
well below sigma/alpha = 12 there. With data 2.5 times as wide the multistep solvers of third
order are seen at 2.0 (3M) and 2.2 (DEIS-3); 3S and UniPC-2 stay at 3.0.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffusion_jax as dj
from tests import oracle

PROCESS = dj.Gaussian(dj.Cosine())
DATA = oracle.Mixture(
    (0.3, 0.7),
    (
        oracle.Independent(np.array([-0.4, 0.2]), np.array([0.04, 0.06])),
        oracle.Independent(np.array([0.4, -0.1]), np.array([0.06, 0.03])),
    ),
)
LOW, HIGH = -5.0, 3.0

# sampler -> the least and the most that the order may be
ORDERS = {
    "ddim": (dj.DDIM(), 0.9, 1.1),
    "euler": (dj.Euler(), 0.9, 1.2),
    "heun": (dj.Heun(), 1.8, 2.3),
    "1M": (dj.DPMSolverPP(1), 0.9, 1.1),
    "2M midpoint": (dj.DPMSolverPP(2), 1.8, 2.3),
    "2M exact": (dj.DPMSolverPP(2, dj.exact), 1.8, 2.3),
    "3M exact": (dj.DPMSolverPP(3, dj.exact), 2.6, 3.4),
    "3M published": (dj.DPMSolverPP(3, dj.published_third), 1.7, 2.4),
    "2S midpoint": (dj.DPMSolverPPSingle(2), 1.8, 2.3),
    "3S exact": (dj.DPMSolverPPSingle(3, dj.exact), 2.6, 3.4),
    "UniP-2": (dj.UniPC(2, corrector=False), 1.8, 2.3),
    "UniPC-1": (dj.UniPC(1), 1.8, 2.3),
    "UniPC-2 bh1": (dj.UniPC(2, dj.bh1), 2.7, 3.4),
    "UniPC-2 bh2": (dj.UniPC(2), 2.7, 3.4),
    "UniPC-3": (dj.UniPC(3), 3.4, 4.6),
    "DEIS-2": (dj.DEIS(2), 1.8, 2.3),
    "DEIS-3": (dj.DEIS(3), 2.6, 3.4),
    # Its coefficients assume equal steps in t, so on this grid it is of second order.
    "PNDM": (dj.PNDM(), 1.8, 2.3),
    "PLMS": (dj.PLMS(), 1.8, 2.3),
}


START = np.random.default_rng(0).normal(size=(8, 2))


@functools.cache
def grid(n):
    """In NumPy, so that no trace is cached."""
    grid = functools.partial(dj.uniform_log_snr, n, PROCESS, low=LOW, high=HIGH)
    return np.asarray(jax.jit(grid)())


@functools.cache
def reference(steps=2000):
    """x at log SNR = HIGH, by the classical Runge-Kutta method."""
    x = jnp.asarray(START)
    ends = jnp.asarray(grid(1))

    @jax.jit
    def run():
        def rate(y, half):
            t = jnp.full(len(x), PROCESS.time_at(2 * half))
            alpha, _ = PROCESS.scales(t, x)
            return -jnp.exp(-half) * DATA.posterior_mean(PROCESS, alpha * y, t).noise

        def step(y, half):
            h = (HIGH - LOW) / 2 / steps
            k1 = rate(y, half)
            k2 = rate(y + h / 2 * k1, half + h / 2)
            k3 = rate(y + h / 2 * k2, half + h / 2)
            k4 = rate(y + h * k3, half + h)
            return y + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4), None

        first, last = (PROCESS.scales(ends[i : i + 1], x)[0] for i in (0, 1))
        nodes = LOW / 2 + jnp.arange(steps) * ((HIGH - LOW) / 2 / steps)
        return last * jax.lax.scan(step, x / first, nodes)[0]

    return np.asarray(run())


def order(sampler, few=80) -> tuple[float, float]:
    """(order, error at twice as many steps)."""

    @jax.jit
    def run(x, times):
        denoiser = functools.partial(DATA.posterior_mean, PROCESS)
        return dj.sample(jax.random.key(0), sampler, PROCESS, denoiser, x, times)

    coarse, fine = (
        np.linalg.norm(np.asarray(run(START, grid(n))) - reference()) for n in (few, 2 * few)
    )
    return float(np.log2(coarse / fine)), fine


@pytest.mark.parametrize("name", ORDERS)
def test_order_of_convergence(x64, name):
    sampler, least, most = ORDERS[name]
    found, error = order(sampler, few=81 if name == "3S exact" else 80)
    print(f"{name}: order {found:.2f}, error {error:.1e}")  # shown by -s
    assert least < found < most
