"""The bound as a loss: what its terms are, what the hybrid trains, a schedule that learns."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffusion_jax as dj
from tests import oracle

STEPS = 20
PROCESS = dj.Gaussian(dj.LinearBeta(STEPS, 0.01, 0.6))
SHAPE = (2, 2, 1)


def known(params, x, t, condition, *, key=None):
    """The exact noise of a blank picture, moved by "y", and a variance output "v"."""
    _, sigma = PROCESS.scales(t, x)
    y = x / sigma + params["y"]
    return jnp.concatenate([y, jnp.broadcast_to(params["v"], y.shape)], axis=-1)


LEARNED = dj.LearnedVariance(dj.Noise())
BATCH = {"image": jnp.zeros((STEPS, *SHAPE))}
EVERY = (jnp.arange(STEPS) + 1.0) / STEPS
EXACT = {"y": jnp.zeros(()), "v": jnp.asarray(-1.0)}  # v = 0: the posterior's variance


@functools.cache
def bits():
    """Terms at every entry for a network that is right, for v = 0, 1/2, 1."""
    terms = dj.variational_terms(known, PROCESS, LEARNED, STEPS)

    @jax.jit
    def run(v):
        return terms({"y": 0.0, "v": v}, jax.random.key(0), BATCH, EVERY)[0]

    return np.stack([run(jnp.asarray(v)) for v in (-1.0, 0.0, 1.0)])


def test_a_network_that_knows_the_data_has_no_divergence():
    exact, middle, large = bits()
    np.testing.assert_allclose(exact[1:], 0.0, atol=1e-4)
    # Later entries have two variances that float32 hardly tells apart.
    assert np.all(middle[1:10] > 0) and np.all(large[1:10] > middle[1:10])
    # The decoder's bits are those of a bin 2/255 wide: more for the larger variance.
    assert 0 < exact[0] < large[0] < 8


@functools.cache
def gradients():
    """Of the hybrid, of its bound alone and of L_simple, off the optimum."""
    params = {"y": jnp.asarray(0.2), "v": jnp.asarray(0.3)}

    def of(terms):
        return jax.grad(lambda p: jnp.mean(terms(p, jax.random.key(0), BATCH, EVERY)[0]))(params)

    make = (known, PROCESS, LEARNED)
    return jax.jit(
        lambda: {
            "hybrid": of(dj.hybrid_terms(*make, STEPS, weight=0.01)),
            "bound": of(dj.variational_terms(*make, STEPS)),
            "simple": of(dj.denoising_terms(*make)),
        }
    )()


def test_hybrid_trains_the_mean_by_the_simple_loss_and_the_variance_by_the_bound():
    hybrid, bound, simple = (gradients()[k] for k in ("hybrid", "bound", "simple"))
    np.testing.assert_allclose(hybrid["y"], simple["y"], rtol=1e-5)
    assert simple["v"] == 0 and abs(bound["v"]) > 0.01 and abs(bound["y"]) > 0.01
    np.testing.assert_allclose(hybrid["v"], 0.01 * STEPS * bound["v"], rtol=1e-4)


def test_a_network_without_variance_is_refused():
    terms = dj.variational_terms(lambda p, x, t, c, key=None: x, PROCESS, dj.Noise(), STEPS)
    with pytest.raises(ValueError, match=r"Noise\(\) predicts no variance"):
        terms({}, jax.random.key(0), BATCH, EVERY)


def shrink(params, x, t, condition, *, key=None):
    """A network of one parameter."""
    return params * x


@functools.cache
def trained():
    """Losses, first gradient and schedules of 30 steps of `vdm_loss`, from a fixed start."""
    loss = dj.vdm_loss(shrink, dj.V(), levels=16)
    pixels = np.random.default_rng(0).integers(0, 16, (64, *SHAPE))
    batch = {"image": jnp.asarray(pixels / 7.5 - 1, jnp.float32)}
    schedule = dj.init_learned(jax.random.key(0), hidden=8, gamma_0=-6.0, gamma_1=3.0)

    @jax.jit
    def run(params):
        def step(params, key):
            (_, (metrics, _)), gradient = jax.value_and_grad(loss, has_aux=True)(
                params, (), key, batch
            )
            params = jax.tree.map(lambda p, g: p - 0.5 * g, params, gradient)
            return params, (metrics, gradient)

        return jax.lax.scan(step, params, jax.random.split(jax.random.key(1), 30))

    begin = {"network": jnp.zeros(()), "schedule": schedule}
    end, (metrics, gradients) = run(begin)
    return begin, end, metrics, jax.tree.map(lambda g: g[0], gradients)


def test_every_parameter_of_a_learned_schedule_gets_a_gradient():
    *_, gradient = trained()
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
        assert np.all(np.isfinite(leaf)) and np.any(leaf != 0), path


def test_a_learned_schedule_trains_and_stays_a_schedule():
    begin, end, metrics, _ = trained()
    assert metrics["loss"][-5:].mean() < metrics["loss"][:5].mean()
    parts = sum(metrics[k] for k in ("diffusion", "prior", "reconstruction"))
    np.testing.assert_allclose(metrics["loss"], parts, rtol=1e-5)
    times = jnp.linspace(0.0, 1.0, 101)
    before, after = (dj.Learned(p["schedule"]) for p in (begin, end))
    assert np.abs(before.gamma(times) - after.gamma(times)).max() > 0.1
    np.testing.assert_allclose(before.gamma(times)[jnp.array([0, -1])], [-6.0, 3.0], rtol=1e-5)
    assert np.all(np.diff(after.gamma(times)) > 0)


def test_the_curve_moves_to_where_the_estimates_spread_least():
    """A network that says nothing has the diffusion loss -lambda'(t)/2: even in t where it is best.

    The ends, which the spread doesn't train, are where they were but for the bound's own step.
    """
    loss = dj.vdm_loss(lambda p, x, t, c, *, key=None: 0.0 * x, dj.Noise(), levels=4)
    params = dj.init_learned(jax.random.key(0), hidden=6)
    params["height"] = params["height"] + 3.0  # far from even
    batch = {"image": jnp.zeros((64, *SHAPE))}

    @jax.jit
    def gradient(params, key):
        of = jax.grad(lambda p: loss({"network": (), "schedule": p}, (), key, batch)[0])
        return of(params)

    def unevenness(params):
        gamma = dj.Learned(params).progress(jnp.linspace(0.0, 1.0, 201))
        return float(jnp.diff(gamma).std())

    moved = params
    for step in range(20):
        g = gradient(moved, jax.random.key(step))
        moved = jax.tree.map(lambda p, g: p - 0.02 * g, moved, g)
    assert unevenness(moved) < 0.9 * unevenness(params)


def test_any_parameters_are_a_schedule():
    """Monotone, variance preserving, exact at data, differentiable, for wild parameters too."""
    params = dj.init_learned(jax.random.key(0), hidden=5)
    wild = jax.tree.map(lambda p: 3 * oracle.normal(1, *p.shape) - 1, params)
    times = jnp.linspace(0.0, 1.0, 101)
    for p in (params, wild):
        schedule = dj.Learned(p)
        assert schedule.alpha(times)[0] == 1 and schedule.sigma(times)[0] == 0
        total = schedule.alpha(times) ** 2 + schedule.sigma(times) ** 2
        np.testing.assert_allclose(total, 1.0, atol=1e-6)
        assert np.all(np.diff(schedule.gamma(times)) > -1e-6)
        log_snr = dj.log_snr(schedule, times)[1:]
        np.testing.assert_allclose(log_snr, -schedule.gamma(times)[1:], rtol=1e-4, atol=1e-4)
        rates = jax.jvp(schedule.sigma, (times,), (jnp.ones_like(times),))[1]
        assert np.all(np.isfinite(rates))
        assert schedule.sigma(times[:2].astype(jnp.bfloat16)).dtype == jnp.float32
        assert schedule.sigma(jnp.ones((2, 3))).shape == (2, 3)


def test_bad_ends_are_refused():
    with pytest.raises(ValueError, match=r"gamma_0 is 1\.0 and gamma_1 is 0\.0"):
        dj.init_learned(jax.random.key(0), gamma_0=1.0, gamma_1=0.0)
