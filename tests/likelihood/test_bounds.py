"""Both variational bounds on Gaussian data, whose likelihood is known, with the optimal denoiser.

There every term is a sum over dimensions of quadratics in x and in the noise. So its mean over both
is that over two points each, one standard deviation to either side: four examples have no sampling
error. `exact_draws` makes noise of them; other tests draw it, and bound the Monte-Carlo error.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffusion_jax as dj
from diffusion_jax.likelihood import (
    ascending,
    continuous,
    continuous_bound,
    discrete,
    discretised_gaussian,
    estimated_bound,
    gaussian_density,
    start_at,
    variational_bound,
)
from tests import oracle
from tests.oracle import Independent, name

DATA = Independent(np.array([0.5, -0.3, 0.1]), np.array([0.1, 0.5, 1.5]))
SIDES = np.stack([DATA.mean + side * np.sqrt(DATA.variance) for side in (1, -1)])
TRUTH = 0.5 * np.sum(1 + np.log(2 * np.pi * DATA.variance))  # -E log p, nats
BITS = 3 * np.log(2)  # nats in a bit per dimension
SCHEDULES = (dj.LinearBeta(), dj.Cosine(), dj.Rectified())


def examples(count):
    """Each side of the data count/2 times, in turn."""
    return jnp.asarray(np.resize(SIDES, (count, 3)))


def oracle_of(schedule):
    process = dj.Gaussian(schedule)
    return process, oracle.denoiser(DATA, process, dj.V())


def mean_and_error(values):
    """Over the examples, two by two, since their sides differ."""
    values = np.asarray(values).reshape(-1, 2).mean(1)
    return values.mean(), values.std() / np.sqrt(len(values))


@pytest.fixture
def exact_draws(x64, monkeypatch):
    """Noise is 1 for examples 0 and 1, -1 for 2 and 3; times are the middles of their strata."""

    def noise(key, index, x):
        return jnp.where(index < 2, 1.0, -1.0)[:, None] * jnp.ones_like(x)

    def middles(key, index, j, draws, dtype):
        return jnp.full(index.shape, (j + 0.5) / draws)

    for module in (continuous, discrete):
        monkeypatch.setattr(module, "white_noise", noise)
        monkeypatch.setattr(module, "strata", middles)


@pytest.mark.parametrize("schedule", [*SCHEDULES, dj.LinearVP()], ids=name)
def test_the_continuous_bound_is_tight(exact_draws, schedule):
    """To 1e-3 bits per dimension; what is left is the table's signal at t = 1 and the decoder."""
    process, denoiser = oracle_of(schedule)
    start = start_at(process, 0.01)

    @jax.jit
    def run(key):
        return continuous_bound(
            key, process, denoiser, examples(4), draws=1000, start=start, decoder=gaussian_density
        )

    gap = np.mean(run(jax.random.key(0)).total) - TRUTH
    assert -1e-4 * BITS < gap < 1e-3 * BITS


@pytest.mark.parametrize("schedule", SCHEDULES, ids=name)
def test_the_discrete_bound_falls_to_the_truth(exact_draws, schedule):
    """The gap is of first order in the steps between fixed ends: twice as many leave half."""
    process, denoiser = oracle_of(schedule)

    @jax.jit
    def run(key):
        def gap(steps):
            times = jnp.append(ascending(steps - 1, start_at(process, 0.01))[::-1], 0.0)
            bound = variational_bound(
                key, process, denoiser, examples(4), times, decoder=gaussian_density
            )
            return bound.total.mean() - TRUTH

        return [gap(steps) for steps in (200, 400)]

    coarse, fine = run(jax.random.key(0))
    assert 0 < fine < 0.1 * BITS
    assert 1.8 < coarse / fine < 2.2


def expected_bound(process, times, variance):
    """(prior, diffusion, reconstruction) in nats, in closed form.

    The posterior of x0 has the variance C sigma^2 / (alpha^2 C + sigma^2), so a step's expected
    KL is 1/2 (SNR_s - SNR_t) times its trace, for w' = w; for w' = v = w sigma_t^2 / sigma_s^2
    that times w/v, and what two Gaussians of these variances differ by.
    """
    alpha, sigma = (
        np.asarray(f(times))[:-1] for f in (process.schedule.alpha, process.schedule.sigma)
    )
    c = DATA.variance[None]
    left = c * (sigma**2)[:, None] / ((alpha**2)[:, None] * c + (sigma**2)[:, None])
    snr = (alpha / sigma) ** 2
    share = (sigma[1:] / sigma[:-1]) ** 2 if variance is dj.fixed_large else np.ones(1)
    prior = 0.5 * snr[0] * np.sum(DATA.variance + DATA.mean**2)
    steps = share * np.diff(snr) * left[:-1].sum(1) + 3 * (share - 1 - np.log(share))
    w = 1 / snr[-1]
    return prior, 0.5 * np.sum(steps), 0.5 * np.sum(np.log(2 * np.pi * w) + left[-1] / w)


CASES = [(s, dj.fixed_small) for s in SCHEDULES] + [(dj.Cosine(), dj.fixed_large)]


@pytest.mark.parametrize(
    "schedule, variance", CASES, ids=lambda v: getattr(v, "__name__", None) or name(v)
)
def test_the_terms_are_those_of_the_closed_form(exact_draws, schedule, variance):
    process, denoiser = oracle_of(schedule)
    times = jnp.linspace(1.0, 0.0, 41)

    @jax.jit
    def run(key):
        return variational_bound(
            key, process, denoiser, examples(4), times,
            decoder=gaussian_density, variance=variance,
        )  # fmt: skip

    *terms, error = run(jax.random.key(0))
    for term, want in zip(terms, expected_bound(process, times, variance), strict=True):
        np.testing.assert_allclose(term.mean(), want, rtol=1e-8, atol=1e-9)
    assert not np.any(error)


def test_drawn_noise_and_drawn_steps_are_right_on_average(x64):
    process, denoiser = oracle_of(dj.Cosine())
    times = jnp.linspace(1.0, 0.0, 21)

    @jax.jit
    def run(key):
        x, how = examples(4000), {"decoder": gaussian_density}
        start = start_at(process, 0.01)
        return (
            variational_bound(key, process, denoiser, x, times, **how),
            estimated_bound(key, process, denoiser, x, times, draws=8, **how),
            continuous_bound(key, process, denoiser, x, draws=8, start=start, **how),
        )

    whole, estimated, continuous_ = run(jax.random.key(2))
    for bound in (whole, estimated):
        for term, want in zip(bound, expected_bound(process, times, None), strict=False):
            mean, error = mean_and_error(term)
            assert error < 0.05 * BITS and abs(mean - want) < 4 * error + 1e-9
    mean, error = mean_and_error(continuous_.total)
    assert error < 0.05 * BITS and abs(mean - TRUTH) < 4 * error
    # The claimed error is the true one of each example, or more, for draws are stratified.
    for bound in (estimated, continuous_):
        claimed = np.sqrt(np.mean(np.asarray(bound.error) ** 2))
        true = np.sqrt(np.mean([np.var(np.asarray(bound.diffusion)[i::2]) for i in (0, 1)]))
        assert 0.95 < claimed / true < 2


def with_variance(denoiser, fraction):
    def predicting(x, t):
        return denoiser(x, t)._replace(variance=jnp.full_like(x, fraction))

    return predicting


def test_learned_variance_runs_from_the_posteriors_to_the_transitions(x64):
    process, denoiser = oracle_of(dj.Cosine())

    def total(variance, fraction):
        return variational_bound(
            jax.random.key(0), process, with_variance(denoiser, fraction), examples(8),
            jnp.linspace(1.0, 0.0, 9), variance=variance, decoder=gaussian_density,
        ).total  # fmt: skip

    @jax.jit
    def run():
        learned = jax.vmap(lambda f: total(dj.learned_range, f))(jnp.array([0.0, 0.5, 1.0]))
        return learned, total(dj.fixed_small, 0.0), total(dj.fixed_large, 0.0)

    (first, middle, last), small, large = run()
    np.testing.assert_allclose(first, small, rtol=1e-9)
    np.testing.assert_allclose(last, large, rtol=1e-9)
    assert np.all(middle != first)
    with pytest.raises(ValueError, match="predicts its variance"):
        variational_bound(
            jax.random.key(0), process, denoiser, examples(2), jnp.linspace(1.0, 0.0, 3),
            variance=dj.learned_range,
        )  # fmt: skip


LEVELS = (np.array([0, 85, 86, 255]) / 127.5 - 1).astype(np.float32)


def levels_denoiser(process):
    """E[x0 | x] for pixels that are one of LEVELS, each as likely."""

    def denoiser(x, t):
        alpha, sigma = process.scales(t, x)
        levels = LEVELS.reshape(1, 1, 4)
        logits = -0.5 * ((x[..., None] - alpha[..., None] * levels) / sigma[..., None]) ** 2
        return process.complete(x, t, jnp.sum(jax.nn.softmax(logits) * levels, -1))

    return denoiser


def test_levels_cost_their_entropy():
    """Four equal levels, two of them neighbours: two bits a pixel, by both bounds, in float32."""
    process = dj.Gaussian(dj.Cosine())
    denoiser = levels_denoiser(process)
    x = jnp.asarray(np.tile(LEVELS, (1000, 1)), jnp.float32)
    start = start_at(process, 1e-3)

    @jax.jit
    def run(key):
        times = jnp.append(ascending(500, start)[::-1], 0.0)
        return [
            continuous_bound(key, process, denoiser, x, draws=32, start=start),
            estimated_bound(
                key, process, denoiser, x, times, draws=32, variance=dj.fixed_large,
                decoder=discretised_gaussian,
            ),
        ]  # fmt: skip

    bounds = run(jax.random.key(0))
    (tight, tight_error), (loose, loose_error) = (
        mean_and_error(bound.total / (4 * np.log(2))) for bound in bounds
    )
    assert tight_error < 0.03 and abs(tight - 2.0) < 4 * tight_error
    assert -4 * loose_error < loose - 2.0 < 0.25


def test_an_example_depends_on_its_number_and_not_on_its_place():
    process = dj.Gaussian(dj.Cosine())
    denoiser = oracle.denoiser(DATA, process, dj.V())
    x, order = oracle.normal(0, 5, 3), jnp.array([3, 1, 0, 4, 2])

    @jax.jit
    def run(x, index):
        key, times = jax.random.key(0), dj.trailing(10)
        return (
            continuous_bound(key, process, denoiser, x, draws=3, index=index),
            estimated_bound(key, process, denoiser, x, times, draws=3, index=index),
        )

    there, moved = run(x, jnp.arange(5)), run(x[order], order)
    for a, b in zip(jax.tree.leaves(there), jax.tree.leaves(moved), strict=True):
        np.testing.assert_allclose(a[order], b, rtol=1e-5)
    for bound in run(jnp.tile(x[:1], (5, 1)), jnp.arange(5)):
        assert len(np.unique(bound.total)) == 5


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda *a: continuous_bound(*a, draws=0), "draws is 0"),
        (lambda *a: estimated_bound(*a, dj.trailing(4), draws=0), "draws is 0"),
        (lambda *a: variational_bound(*a, jnp.ones(1)), r"times has shape \(1,\)"),
    ],
)
def test_refuses(call, message):
    process, denoiser = oracle_of(dj.Cosine())
    with pytest.raises(ValueError, match=message):
        call(jax.random.key(0), process, denoiser, jnp.zeros((2, 3)))
