"""Schedules: exact ends, the papers' tables, smooth in between, values that compare."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffusion_jax as dj
from tests.oracle import MORE_SCHEDULES, SCHEDULES

TABLES = (dj.LinearBeta(), dj.ScaledLinearBeta(), dj.CosineBeta(), dj.LinearBeta(7, 0.1, 0.5))
ENDING = (dj.Cosine(), dj.Rectified(), dj.Rectified(0.3), dj.Sigmoid(), dj.ZeroTerminalSNR())
PRESERVING = (
    *TABLES,
    dj.Cosine(),
    dj.Sigmoid(),
    dj.Sigmoid(0.0, 3.0, 0.7),
    dj.Sqrt(),
    dj.LinearVP(),
    dj.ZeroTerminalSNR(),
    dj.ZeroTerminalSNR(dj.LinearBeta(7, 0.1, 0.5)),
)
every = pytest.mark.parametrize("schedule", (*SCHEDULES, *MORE_SCHEDULES), ids=repr)
times = jnp.linspace(0.0, 1.0, 1001)


@every
def test_data_end_is_exact(schedule):
    zero = jnp.zeros(())
    assert schedule.alpha(zero) == 1.0
    assert schedule.sigma(zero) == 0.0


@pytest.mark.parametrize("schedule", ENDING, ids=repr)
@pytest.mark.parametrize("jitted", [False, True], ids=["eager", "jit"])
def test_noise_end_is_exact_where_the_formula_reaches_noise(schedule, jitted):
    def ends(t):
        return schedule.alpha(t), schedule.sigma(t)

    alpha, sigma = (jax.jit(ends) if jitted else ends)(jnp.ones(()))
    assert alpha == 0.0
    assert sigma == 1.0


@pytest.mark.parametrize("schedule", PRESERVING, ids=repr)
def test_preserves_variance(schedule):
    total = schedule.alpha(times) ** 2 + schedule.sigma(times) ** 2
    np.testing.assert_allclose(total, 1.0, atol=1e-6)


def test_rectified_moves_in_a_straight_line():
    schedule = dj.Rectified()
    np.testing.assert_allclose(schedule.alpha(times) + schedule.sigma(times), 1.0, atol=1e-7)
    np.testing.assert_allclose(np.diff(schedule.sigma(times), 2), 0.0, atol=2e-7)


@every
def test_log_snr_falls(schedule):
    log_snr = np.asarray(dj.log_snr(schedule, times))
    assert log_snr[0] == np.inf
    assert np.all(np.diff(log_snr[1:]) < 0)


@pytest.mark.parametrize(
    ("schedule", "betas"),
    [
        (dj.LinearBeta(), np.linspace(1e-4, 0.02, 1000)),
        (dj.ScaledLinearBeta(), np.linspace(math.sqrt(0.00085), math.sqrt(0.012), 1000) ** 2),
        (dj.LinearBeta(4, 0.1, 0.4), np.array([0.1, 0.2, 0.3, 0.4])),
    ],
    ids=["linear", "scaled", "four"],
)
def test_entry_k_is_the_cumulative_product_at_k_plus_1_over_steps(x64, schedule, betas):
    t = jnp.arange(1, len(betas) + 1) / len(betas)
    np.testing.assert_allclose(schedule.alpha(t) ** 2, np.cumprod(1 - betas), rtol=1e-11)


def test_cosine_table_follows_its_curve_until_the_clip(x64):
    """abar_k = f(k + 1) / f(0): the ratios of (17) telescope wherever beta isn't clipped."""
    schedule = dj.CosineBeta(steps=100)
    t = np.arange(1, 101) / 100
    curve = np.cos((t + 0.008) / 1.008 * np.pi / 2) ** 2 / np.cos(0.008 / 1.008 * np.pi / 2) ** 2
    abar = np.asarray(schedule.alpha(jnp.asarray(t)) ** 2)
    np.testing.assert_allclose(abar[:-1], curve[:-1], rtol=1e-10)
    np.testing.assert_allclose(abar[-1] / abar[-2], 1 - 0.999, rtol=1e-10)


@pytest.mark.parametrize("schedule", TABLES, ids=repr)
def test_log_alpha_bar_is_linear_between_entries(x64, schedule):
    k = jnp.arange(schedule.steps)
    left, middle, right = (jnp.log(schedule.alpha((k + u) / schedule.steps)) for u in (0, 0.5, 1))
    np.testing.assert_allclose(middle, (left + right) / 2, rtol=1e-9, atol=1e-14)


def test_sqrt_table_is_a_square_root_until_the_clip(x64):
    schedule = dj.Sqrt(steps=100, offset=1e-4)
    t = jnp.arange(1, 100) / 100
    np.testing.assert_allclose((1 - schedule.alpha(t) ** 2) ** 2, t + 1e-4, rtol=1e-9)


def test_zero_terminal_snr_shifts_and_stretches_alpha(x64):
    """Lin et al.: the first entry stays, the last becomes 0, and the map is affine."""
    table = dj.ScaledLinearBeta(steps=100)
    rescaled = dj.ZeroTerminalSNR(table)
    t = jnp.arange(1, 101) / 100
    before, after = (np.asarray(s.alpha(t)) for s in (table, rescaled))
    np.testing.assert_allclose(after[0], before[0], rtol=1e-12)
    assert after[-1] == 0
    ratio = np.diff(after) / np.diff(before)
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-9)
    np.testing.assert_allclose(np.cumprod(1 - rescaled.betas()), after**2, atol=1e-12)
    assert rescaled.betas()[-1] == 1


def test_sigmoid_is_the_papers_ratio_of_sigmoids(x64):
    schedule, t = dj.Sigmoid(-1.0, 3.0, 0.9), times.astype(float)
    s = jax.nn.sigmoid((-1.0 + 4.0 * t) / 0.9)
    np.testing.assert_allclose(schedule.alpha(t) ** 2, (s[-1] - s) / (s[-1] - s[0]), atol=1e-14)


def test_linear_vp_has_a_linear_rate_and_sub_vp_the_square_of_its_sigma(x64):
    vp, sub = dj.LinearVP(0.2, 8.0), dj.SubVP(0.2, 8.0)
    t = jnp.linspace(0.1, 0.9, 9)
    rate = jax.vmap(jax.grad(lambda t: -2 * jnp.log(vp.alpha(t))))(t)
    np.testing.assert_allclose(rate, 0.2 + 7.8 * t, rtol=1e-10)
    np.testing.assert_array_equal(sub.alpha(t), vp.alpha(t))
    np.testing.assert_allclose(sub.sigma(t), vp.sigma(t) ** 2, rtol=1e-12)


def test_levels_of_ve_are_geometric_and_karras_even_in_their_root(x64):
    t = jnp.linspace(0.0, 1.0, 1001)  # in float64, so that the steps are even

    def levels(schedule):
        return np.sqrt(np.asarray(schedule.sigma(t)) ** 2 + schedule.sigma_min**2)

    geometric, roots = levels(dj.VE(0.1, 20.0)), levels(dj.KarrasVE(0.1, 20.0, 5.0)) ** (1 / 5)
    for found in (geometric, roots**5):
        np.testing.assert_allclose(found[[0, -1]], [0.1, 20.0], rtol=1e-9)
    np.testing.assert_allclose(np.diff(np.log(geometric)), np.log(200) / 1000, rtol=1e-6)
    np.testing.assert_allclose(np.diff(roots), (roots[-1] - roots[0]) / 1000, rtol=1e-6)
    limit = levels(dj.KarrasVE(0.1, 20.0, 1e7))
    np.testing.assert_allclose(limit, geometric, rtol=1e-5)


def test_shift_moves_the_log_snr_by_a_constant(x64):
    plain, shifted = (dj.log_snr(dj.Rectified(s), times[1:-1].astype(float)) for s in (1.0, 3.0))
    np.testing.assert_allclose(plain - shifted, 2 * np.log(3), rtol=1e-9)


@every
@pytest.mark.parametrize(
    ("given", "computed"),
    [("bfloat16", "float32"), ("float16", "float32"), ("float32", "float32"), ("float64",) * 2],
)
def test_computes_in_float32_or_better(x64, schedule, given, computed):
    t = jnp.asarray([0.0, 0.25, 1.0], given)
    assert schedule.alpha(t).dtype == schedule.sigma(t).dtype == computed


@every
def test_float32_is_accurate(x64, schedule):
    t32 = times.astype(jnp.float32)
    t64 = t32.astype(jnp.float64)
    for function in (schedule.alpha, schedule.sigma):
        np.testing.assert_allclose(function(t32), function(t64), rtol=1e-5, atol=1e-6)


@every
def test_keeps_the_shape_of_t(schedule):
    for shape in [(), (3,), (2, 3)]:
        t = jnp.full(shape, 0.5)
        assert schedule.alpha(t).shape == schedule.sigma(t).shape == shape


@every
def test_derivatives(x64, schedule):
    """Finite at both ends, and the slope of the function in between (off a table's knots)."""
    inside = (np.arange(1000) + 0.5)[::37] / 1000
    h = 1e-6
    t = jnp.concatenate([jnp.array([0.0, 1.0]), inside])
    for function in (schedule.alpha, schedule.sigma):
        slope, left, right = jax.jit(
            lambda t, f=function: (jax.vmap(jax.grad(f))(t), f(t - h), f(t + h))
        )(t)
        assert np.all(np.isfinite(slope))
        difference = (right - left) / (2 * h)
        np.testing.assert_allclose(slope[2:], difference[2:], rtol=1e-5, atol=1e-8)


@every
def test_compares_hashes_and_prints_by_value(schedule):
    twin = dataclasses.replace(schedule)
    assert twin == schedule and hash(twin) == hash(schedule) and twin is not schedule
    assert eval(repr(schedule), vars(dj)) == schedule


def test_equal_schedules_compile_once():
    alpha = jax.jit(lambda schedule, t: schedule.alpha(t), static_argnums=0)
    t = jnp.ones(2)
    first = alpha(dj.LinearBeta(steps=20), t)
    assert alpha._cache_size() == 1
    np.testing.assert_array_equal(alpha(dj.LinearBeta(steps=20), t), first)
    assert alpha._cache_size() == 1
    assert not np.array_equal(alpha(dj.LinearBeta(steps=30), t), first)
    assert dj.LinearBeta(steps=20) != dj.LinearBeta(steps=30)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: dj.LinearBeta(steps=0), r"LinearBeta: steps is 0; .* at least 1"),
        (lambda: dj.LinearBeta(start=0.0), r"LinearBeta: start is 0.0 and end is 0.02; .* < 1"),
        (lambda: dj.LinearBeta(start=0.1, end=0.01), "start is 0.1 and end is 0.01"),
        (lambda: dj.ScaledLinearBeta(end=1.0), "ScaledLinearBeta: .* end is 1.0"),
        (lambda: dj.CosineBeta(max_beta=1.0), "CosineBeta: .*1.0"),
        (lambda: dj.CosineBeta(offset=-0.1), "CosineBeta: offset is -0.1; .* at least 0"),
        (lambda: dj.Sqrt(offset=0.1), "Sqrt: offset is 0.1; .* below 1/steps"),
        (lambda: dj.ZeroTerminalSNR(dj.LinearBeta(1)), "LinearBeta.* has fewer than 2 entries"),
        (lambda: dj.Sigmoid(start=3.0), "Sigmoid: start is 3.0, end is 3.0"),
        (lambda: dj.LinearVP(beta_min=-1.0), "LinearVP: beta_min is -1.0"),
        (lambda: dj.SubVP(0.0, 0.0), "SubVP: .*beta_max is 0.0"),
        (lambda: dj.Rectified(shift=0.0), "Rectified: shift is 0.0"),
        (lambda: dj.VE(1.0, 1.0), "VE: sigma_min is 1.0 and sigma_max is 1.0"),
        (lambda: dj.KarrasVE(sigma_min=0.0), "KarrasVE: sigma_min is 0.0"),
        (lambda: dj.KarrasVE(rho=0.0), "KarrasVE: rho is 0.0"),
    ],
)
def test_bad_tables_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def draw(schedule, **options):
    return dj.Gaussian(schedule, **options).prior(jnp.ones(3))


@every
def test_prior_is_sigma_1_times_noise(schedule):
    np.testing.assert_allclose(draw(schedule), np.full(3, schedule.sigma(jnp.ones(()))))


@pytest.mark.parametrize("kind", [dj.VE, dj.KarrasVE])
def test_noise_that_is_added_must_drown_data_of_unit_scale(kind):
    draw(kind(sigma_max=10.0))
    with pytest.raises(ValueError, match=r"signal-to-noise ratio at t = 1 is 0.01"):
        draw(kind(sigma_max=8.0))


@pytest.mark.parametrize("jitted", [False, True], ids=["eager", "jit"])
def test_schedule_that_does_not_end_in_noise_is_refused(jitted):
    short = dj.LinearBeta(steps=10)

    def run(**options):
        def prior():
            return draw(short, **options)

        return (jax.jit(prior) if jitted else prior)()

    with pytest.raises(ValueError, match=r"LinearBeta\(steps=10.*doesn't end in noise.*terminal"):
        run()
    np.testing.assert_allclose(run(max_terminal_snr=math.inf), short.sigma(jnp.ones(())))


def test_learned_schedule_inside_jit_has_a_prior():
    """Its signal-to-noise ratio is traced, so there is nothing to refuse yet."""

    class Learned:
        def __init__(self, power):
            self.power = power

        def alpha(self, t):
            return 1.0 - t**self.power

        def sigma(self, t):
            return t**self.power

    np.testing.assert_allclose(jax.jit(lambda power: draw(Learned(power)))(2.0), 1.0)
