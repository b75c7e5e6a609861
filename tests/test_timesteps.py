"""Times: drawn in range, the same however the batch is cut; grids that go where they say."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffusion_jax as dj
from tests.oracle import SCHEDULES, name

RULES = (
    dj.Uniform(),
    dj.Uniform(0.2, 0.6),
    dj.Stratified(),
    dj.Stratified(0.2, 0.6),
    dj.Discrete(10),
    dj.Discrete(10, dj.Stratified()),
    dj.HyperbolicSecant(dj.Gaussian(dj.Cosine())),
    dj.LogNormal(dj.Gaussian(dj.KarrasVE())),
)
every_rule = pytest.mark.parametrize("rule", RULES, ids=repr)
COUNT = 2000


def draw(rule, index, count=COUNT, seed=0):
    return rule(jax.random.key(seed), index, count)


@every_rule
def test_independent_of_how_the_batch_is_cut(rule):
    whole = draw(rule, jnp.arange(COUNT))
    np.testing.assert_array_equal(
        draw(rule, jnp.array([7, 3, 1999])), whole[jnp.array([7, 3, 1999])]
    )


@every_rule
def test_another_key_gives_other_times(rule):
    index = jnp.arange(COUNT)
    assert np.mean(draw(rule, index) == draw(rule, index, seed=1)) < 0.5


@pytest.mark.parametrize("kind", [dj.Uniform, dj.Stratified])
@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (0.2, 0.6)])
def test_uniform_on_its_range(kind, low, high):
    """The range, and the mean and variance of U[low, high) within 5 sigma."""
    u = (np.asarray(draw(kind(low, high), jnp.arange(COUNT))) - low) / (high - low)
    assert u.min() >= -1e-6 and u.max() < 1 + 1e-6
    assert abs(u.mean() - 1 / 2) < 5 * np.sqrt(1 / 12 / COUNT)
    assert abs(u.var() - 1 / 12) < 5 * np.sqrt(1 / 180 / COUNT)


def test_uniform_examples_are_independent():
    t = np.asarray(draw(dj.Uniform(), jnp.arange(COUNT))) - 0.5
    for lag in (1, 2, 8):
        assert abs(np.mean(t[lag:] * t[:-lag]) * 12) < 5 / np.sqrt(COUNT - lag)


@pytest.mark.parametrize("seed", range(3))
def test_stratified_meets_each_stratum_once(seed):
    count = 64
    t = np.asarray(draw(dj.Stratified(), jnp.arange(count), count, seed))
    np.testing.assert_allclose(np.diff(np.sort(t)), 1 / count, atol=1e-6)
    shift = t.min()
    assert 0 <= shift < 1 / count + 1e-6


def test_discrete_draws_every_entry_of_the_table_equally():
    t = np.asarray(draw(dj.Discrete(10), jnp.arange(COUNT)))
    k = np.round(t * 10).astype(int)
    np.testing.assert_allclose(t, k / 10, rtol=1e-6)
    shares = np.bincount(k, minlength=11) / COUNT
    assert shares[0] == 0
    np.testing.assert_allclose(shares[1:], 0.1, atol=5 * np.sqrt(0.09 / COUNT))


@pytest.mark.parametrize("schedule", [dj.Cosine(), dj.KarrasVE()], ids=name)
def test_log_snr_follows_the_hyperbolic_secant(schedule):
    """Even draws fill each bin as the density sech(lambda / 2), cut to its range, says."""
    process, low, high, count = dj.Gaussian(schedule), -6.0, 8.0, 20_000
    rule = dj.HyperbolicSecant(process, low, high, dj.Stratified())
    log_snr = np.asarray(process.log_snr(draw(rule, jnp.arange(count), count)))
    edges = np.linspace(low, high, 15)
    shares = np.histogram(log_snr, edges)[0] / count
    middles = (edges[1:] + edges[:-1])[:, None] / 2 + np.linspace(-0.5, 0.5, 41)[None]
    density = (1 / np.cosh(middles / 2)).mean(1)
    np.testing.assert_allclose(shares, density / density.sum(), rtol=0.01, atol=5e-4)


def test_cosine_times_of_the_secant_are_uniform():
    t = np.sort(
        draw(
            dj.HyperbolicSecant(dj.Gaussian(dj.Cosine()), times=dj.Stratified()), jnp.arange(COUNT)
        )
    )
    np.testing.assert_allclose(np.diff(t), 1 / COUNT, rtol=0.02)


@pytest.mark.parametrize("schedule", [dj.Cosine(), dj.KarrasVE()], ids=name)
def test_noise_levels_are_log_normal(schedule):
    """Moments and quantiles of log(sigma / alpha), of even draws."""
    process, count = dj.Gaussian(schedule), 20_000
    rule = dj.LogNormal(process, times=dj.Stratified())
    level = -0.5 * np.asarray(process.log_snr(draw(rule, jnp.arange(count), count)))
    z = (level + 1.2) / 1.2
    np.testing.assert_allclose([z.mean(), z.std()], [0.0, 1.0], atol=2e-3)
    np.testing.assert_allclose((z < 1).mean(), 0.841345, atol=1e-3)
    np.testing.assert_allclose((z < -2).mean(), 0.022750, atol=1e-3)


def test_discrete_stays_in_the_table_at_the_edges():
    def edges(key, index, count):
        return jnp.array([0.0, 1.0])

    t = dj.Discrete(10, edges)(jax.random.key(0), jnp.arange(2), 2)
    np.testing.assert_allclose(t, [0.1, 1.0])


@pytest.mark.parametrize("n", [1, 2, 10, 50])
@pytest.mark.parametrize(
    "grid",
    [
        dj.trailing,
        lambda n: dj.trailing(n, 1000),
        dj.leading,
        lambda n: dj.leading(n, offset=1),
        dj.linspace,
        lambda n: dj.karras(n, dj.Gaussian(dj.Cosine())),
    ],
    ids=["trailing", "trailing_table", "leading", "leading_offset", "linspace", "karras"],
)
def test_grids_fall_to_data(grid, n):
    times = np.asarray(grid(n))
    assert times.shape == (n + 1,) and times.dtype == np.float32
    assert np.all(np.diff(times) < 0)
    assert times[-1] == 0 and 0 < times[0] <= 1


def test_trailing_and_linspace_start_at_pure_noise_and_leading_does_not():
    assert dj.trailing(10)[0] == dj.trailing(10, 1000)[0] == dj.linspace(10)[0] == 1
    assert dj.leading(10)[0] < 1


def test_trailing_is_even():
    np.testing.assert_allclose(np.diff(dj.trailing(8)), -1 / 8, rtol=1e-6)


@pytest.mark.parametrize("n", [3, 7, 30])
def test_table_grids_meet_the_table(n):
    for times in (dj.trailing(n, 100), dj.leading(n, 100), dj.linspace(n, 100)):
        entries = np.asarray(times) * 100
        np.testing.assert_allclose(entries, np.round(entries), atol=1e-4)


def test_leading_ends_at_the_first_entry_and_linspace_too():
    assert dj.leading(10, 100)[-2] == dj.linspace(10, 100)[-2] == np.float32(1 / 100)
    assert dj.leading(10, 100, offset=1)[-2] == np.float32(2 / 100)
    np.testing.assert_allclose(np.diff(dj.leading(10, 100)[:-1]), -0.1, rtol=1e-5)


@pytest.mark.parametrize("schedule", [SCHEDULES[0], *SCHEDULES[3:]], ids=name)
def test_karras_walks_evenly_in_the_root_of_the_noise_level(x64, schedule):
    process = dj.Gaussian(schedule)

    @jax.jit
    def levels():
        times = dj.karras(12, process, sigma_min=0.05, sigma_max=8.0, rho=5.0)[:-1]
        return process.schedule.sigma(times) / process.schedule.alpha(times)

    levels = np.asarray(levels())
    np.testing.assert_allclose(levels[[0, -1]], [8.0, 0.05], rtol=1e-3)
    steps = np.diff(levels ** (1 / 5))
    np.testing.assert_allclose(steps, steps.mean(), rtol=1e-2)


def test_karras_starts_at_the_process_end_where_that_is_lower():
    """LinearBeta's sigma/alpha at t = 1 is about 157, ScaledLinearBeta's about 15."""
    times = dj.karras(5, dj.Gaussian(dj.ScaledLinearBeta()), sigma_max=80.0)
    np.testing.assert_allclose(times[0], 1.0, rtol=1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: dj.trailing(0), "trailing: n is 0; .* at least 1"),
        (lambda: dj.trailing(11, 10), "trailing: n is 11, more than the table's 10 steps"),
        (lambda: dj.leading(1001), "leading: n is 1001, more than the table's 1000"),
        (lambda: dj.linspace(-1), "linspace: n is -1"),
        (lambda: dj.karras(0, dj.Gaussian(dj.Cosine())), "karras: n is 0"),
        (
            lambda: dj.karras(5, dj.Gaussian(dj.Cosine()), sigma_min=3.0, sigma_max=2.0),
            "karras: sigma_min is 3.0 and sigma_max is 2.0",
        ),
        (lambda: dj.karras(5, dj.Gaussian(dj.Cosine()), sigma_min=0.0), "sigma_min is 0.0"),
    ],
)
def test_impossible_grids_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
