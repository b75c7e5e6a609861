"""The probability flow's density on Gaussian data, with the optimal denoiser."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffusion_jax as dj
from diffusion_jax.likelihood import (
    Exact,
    Hutchinson,
    ascending,
    bits_per_dimension,
    flow_log_density,
    gaussian_probes,
    heun,
    rademacher,
    rk4,
    start_at,
)
from tests import oracle
from tests.oracle import name

DATA = oracle.correlated(3)
VARIANCE, BASIS = np.linalg.eigh(DATA.covariance)
# One standard deviation off in every eigenvector: -log p, a quadratic, has its mean there.
SIDES = np.stack([DATA.mean + side * BASIS @ np.sqrt(VARIANCE) for side in (1, -1)])


SCHEDULES = (dj.LinearBeta(), dj.Cosine(), dj.Rectified(), dj.LinearVP(), dj.SubVP())


def truth(added=0.0):
    """-E log density of the data plus noise of this variance, nats."""
    variance = VARIANCE + added
    return 0.5 * np.sum(np.log(2 * np.pi * variance) + VARIANCE / variance)


def density(schedule, x, times, **options):
    process = dj.Gaussian(schedule)
    denoiser = oracle.denoiser(DATA, process, dj.V())
    return flow_log_density(jax.random.key(0), process, denoiser, x, times, **options)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=name)
def test_exact_divergence_gives_the_truth(x64, schedule):
    """To 1e-3 bits per dimension where it starts near the data; in general, with noise added."""
    process = dj.Gaussian(schedule)

    @jax.jit
    @jax.vmap
    def run(std):
        times = ascending(60, start_at(process, std))
        return density(schedule, jnp.asarray(SIDES), times, divergence=Exact(chunk=2)).log_density

    stds = np.array([0.005, 0.5])
    found = bits_per_dimension(-run(jnp.asarray(stds)).mean(1), 3)
    want = [bits_per_dimension(truth(std**2), 3) for std in stds]
    np.testing.assert_allclose(found, want, atol=3e-4)
    assert abs(found[0] - bits_per_dimension(truth(), 3)) < 1e-3
    assert found[1] - bits_per_dimension(truth(), 3) > 0.02


def test_hutchinson_is_right_on_average_within_its_error(x64):
    """Rademacher probes are the better ones, and four are worth four times one."""
    count, times = 4000, ascending(4, start_at(dj.Gaussian(dj.Cosine()), 0.05))

    @jax.jit
    def run(x):
        many = jnp.broadcast_to(x, (count, 3))
        estimates = [
            density(dj.Cosine(), many, times, divergence=Hutchinson(*how)).log_density
            for how in ((1, rademacher), (4, rademacher), (1, gaussian_probes))
        ]
        return density(dj.Cosine(), x, times, divergence=Exact()).log_density, estimates

    exact, estimates = run(jnp.asarray(SIDES[:1]))
    spread = [np.asarray(e).std() for e in estimates]
    for estimate, std in zip(estimates, spread, strict=True):
        assert abs(np.asarray(estimate).mean() - exact[0]) < 4 * std / np.sqrt(count)
    assert 1.85 < spread[0] / spread[1] < 2.15
    assert spread[2] > 1.2 * spread[0]


@pytest.mark.parametrize("solver, order", [(heun, 2), (rk4, 4)], ids=["heun", "rk4"])
def test_order_of_convergence(x64, solver, order):
    """Of the latent, which the flow of Gaussian data gives in closed form, and of the density."""
    process = dj.Gaussian(dj.Cosine())
    x = jnp.asarray(SIDES)

    @jax.jit
    def run():
        def at(n):
            times = jnp.linspace(0.1, 1.0, n + 1)
            return density(dj.Cosine(), x, times, divergence=Exact(), solver=solver)

        start = process.schedule.alpha(jnp.full(2, 0.1))[:, None] * x
        exact = DATA.flow(process, start, jnp.full(2, 0.1), jnp.ones(2))
        return [at(n) for n in (10, 20, 40)], exact

    (coarse, middle, fine), exact = run()
    errors = [np.abs(d.latent - exact).max() for d in (coarse, middle)]
    assert 0.75 * 2**order < errors[0] / errors[1] < 1.4 * 2**order
    steps = [
        np.abs(a.log_density - b.log_density).max() for a, b in ((coarse, middle), (middle, fine))
    ]
    assert 0.7 * 2**order < steps[0] / steps[1] < 1.5 * 2**order


def test_pictures_in_float32_and_batches():
    """Any rank; an example depends on its number alone; the sum over dimensions is right."""
    process = dj.Gaussian(dj.Rectified())
    data = oracle.Independent(
        np.full((2, 2, 1), 0.2), np.array([0.3, 1.0, 0.5, 2.0]).reshape(2, 2, 1)
    )
    denoiser = oracle.denoiser(data, process, dj.V())
    x, order = oracle.normal(0, 4, 2, 2, 1), jnp.array([2, 0, 3, 1])
    times = ascending(20, start_at(process, 0.01))

    @jax.jit
    def run(x, index):
        return [
            flow_log_density(
                jax.random.key(3), process, denoiser, x, times, divergence=d, index=index
            ).log_density
            for d in (Exact(chunk=3), Hutchinson(1, gaussian_probes))
        ]

    exact, estimated = run(x, jnp.arange(4))
    want = data.log_density(process, x, jnp.zeros(4))
    np.testing.assert_allclose(exact, want, atol=1e-2)
    assert np.all(exact != estimated)
    for there, moved in zip((exact, estimated), run(x[order], order), strict=True):
        np.testing.assert_allclose(there[order], moved, rtol=1e-5)


def test_a_process_of_frequencies_has_the_density_of_its_pictures():
    """The DCT keeps volumes, and every frequency has an alpha of its own."""
    process = dj.blurring(sigma_max=2.0)
    data = oracle.Independent(
        np.full((2, 2, 1), 0.2), np.array([0.3, 1.0, 0.5, 2.0]).reshape(2, 2, 1)
    )
    u = oracle.normal(0, 4, 2, 2, 1)  # frequencies

    @jax.jit
    def run(u):
        def denoiser(x, t):
            return data.posterior_mean(process, x, t)

        times = ascending(20, start_at(process, 0.01))
        key, pixels = jax.random.key(3), process.decode(u)
        how = {"divergence": Exact()}
        return flow_log_density(key, process, denoiser, pixels, times, **how).log_density

    np.testing.assert_allclose(run(u), data.log_density(process, u, jnp.zeros(4)), atol=1e-2)


def test_refuses():
    with pytest.raises(ValueError, match="at least 1 step"):
        ascending(0, 0.1)
    with pytest.raises(ValueError, match=r"times has shape \(1,\)"):
        density(dj.Cosine(), jnp.asarray(SIDES), jnp.ones(1))
