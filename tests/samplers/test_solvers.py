"""Every deterministic or multistep sampler: moments, both ends, gradients, precision.

For Gaussian data and its optimal denoiser a step is affine in x, so a batch of unit vectors
reads off the mean and covariance of the samples exactly, as in `test_moments`.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffusion_jax as dj
from tests import oracle

KEY = jax.random.key(0)
DATA = oracle.correlated(2)
MEAN, COVARIANCE = (np.asarray(m, np.float32) for m in (DATA.mean, DATA.covariance))
WHITEN = np.linalg.inv(np.linalg.cholesky(COVARIANCE)).astype(np.float32)
SCHEDULES = {"cosine": dj.Cosine(), "rectified": dj.Rectified(), "linear": dj.LinearBeta()}

SAMPLERS = {
    "euler": dj.Euler(),
    "heun": dj.Heun(),
    "2M": dj.DPMSolverPP(2),
    "3M": dj.DPMSolverPP(3, dj.exact, lower_order_final=True),
    "3M published": dj.DPMSolverPP(3, dj.published_third),
    "2M SDE": dj.DPMSolverPP(2, dj.exact, eta=1.0),
    "2S": dj.DPMSolverPPSingle(2),
    "3S": dj.DPMSolverPPSingle(3, dj.exact),
    "UniPC bh1": dj.UniPC(2, dj.bh1),
    "UniPC-3": dj.UniPC(3, lower_order_final=True),
    "DEIS": dj.DEIS(3),
    "PNDM": dj.PNDM(),
    "PLMS": dj.PLMS(),
}
samplers = pytest.mark.parametrize("name", SAMPLERS)


def start_of(process):
    alpha, sigma = process.scales(jnp.ones(1), jnp.ones((1, 1)))
    return alpha * MEAN[None], jnp.linalg.cholesky(alpha**2 * COVARIANCE + sigma**2 * jnp.eye(2))


@functools.cache
def errors(name, steps=100):
    """Errors of mean and covariance in units of the data, [schedule, 2]; one program."""
    sampler = SAMPLERS[name]
    units = np.eye(2 + steps * 2 * sampler.draws, dtype=np.float32)
    units = np.concatenate([np.zeros_like(units[:1]), units])
    shape = len(units), steps, sampler.draws, 2
    e, z = units[:, :2], units[:, 2:].reshape(shape).transpose(1, 2, 0, 3)

    @jax.jit
    def run():
        def of(schedule):
            process = dj.Gaussian(schedule)
            denoiser = oracle.denoiser(DATA, process, dj.V())
            mean, root = start_of(process)
            times = jnp.linspace(1.0, 0.0, steps + 1) ** 2
            x = dj.sample(
                KEY, sampler, process, denoiser, mean + e @ root.T, times, noise=jnp.asarray(z)
            )
            columns = WHITEN @ (x[1:] - x[:1]).T
            mean_error = jnp.abs(WHITEN @ (x[0] - MEAN)).max()
            return jnp.stack([mean_error, jnp.abs(columns @ columns.T - jnp.eye(2)).max()])

        return jnp.stack([of(schedule) for schedule in SCHEDULES.values()])

    return np.asarray(run())


# Of first order, in x or in its moments: 100 steps leave a percent.
TOLERANCES = {"euler": 0.05, "2M SDE": 0.03}


@samplers
def test_mean_and_covariance_are_the_datas(name):
    assert errors(name).max() < TOLERANCES.get(name, 0.01), errors(name)


@functools.cache
def ends():
    """One step from alpha = 0 and one to sigma = 0, each with DDIM's beside, and a whole walk.

    By every sampler, with the walk's gradients in x and in the grid: one program.
    """
    process = dj.Gaussian(dj.Cosine())
    data = oracle.Independent(np.array([0.3, -0.5]), np.array([0.5, 0.1]))

    def denoiser(x, t):
        return data.posterior_mean(process, x, t)

    def at_both_ends(sampler, x, z):
        def step(times):
            t, s = jnp.broadcast_to(times[:, None], (2, len(x)))
            state = sampler.init(x, times)
            return sampler.step(x, state, t, s, denoiser, process, lambda j: z)[0]

        return jax.vmap(step)(jnp.array([[1.0, 0.6], [0.4, 0.0]]))

    def energy(inputs, sampler, z):
        x, times = inputs
        noise = z[:, None] if sampler.draws else None
        x = dj.sample(KEY, sampler, process, denoiser, x, times, noise=noise)
        return (x**2).sum(), x

    @jax.jit
    def run(x, z, times):
        ddim = {eta: at_both_ends(dj.DDIM(eta), x, z[0]) for eta in (0.0, 1.0)}
        found = {}
        for name, sampler in SAMPLERS.items():
            found[name] = {
                "ends": at_both_ends(sampler, x, z[0]),
                "ddim": ddim[getattr(sampler, "eta", 0.0)],
                "walk": jax.value_and_grad(energy, has_aux=True)((x, times), sampler, z),
            }
        return found

    times = jnp.array([1.0, 0.6, 0.3, 0.1, 0.0])
    return jax.tree.map(np.asarray, run(oracle.normal(0, 3, 2), oracle.normal(1, 4, 3, 2), times))


@samplers
def test_from_no_signal_and_to_no_noise_it_is_ddim_exactly(name):
    found = ends()[name]
    np.testing.assert_allclose(found["ends"], found["ddim"], rtol=1e-6, atol=1e-7)


@samplers
def test_walks_and_gradients_through_both_ends_are_finite(name):
    """The gradient in the grid isn't 0; that in x_1 is for SDEs, which forget x_1 at alpha = 0."""
    walk = ends()[name]["walk"]
    assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(walk))
    _, (of_x, of_times) = walk
    assert np.abs(of_times).max() > 1e-3
    assert getattr(SAMPLERS[name], "eta", 0.0) == 1.0 or np.abs(of_x).max() > 1e-3


@samplers
def test_a_bfloat16_network_leaves_the_state_float32(name):
    process = dj.Gaussian(dj.Cosine())

    def network(x, t):
        assert x.dtype == jnp.float32
        return 0.5 * x.astype(jnp.bfloat16)

    denoiser = dj.denoiser_from(network, process, dj.V())
    sampler = SAMPLERS[name]

    def run(x, t, s):
        state = sampler.init(x, jnp.stack([t[0], s[0]]))
        return state, sampler.step(x, state, t, s, denoiser, process, lambda j: x)

    before, (x, after) = jax.eval_shape(run, jnp.ones((2, 3, 3, 1)), jnp.ones(2), jnp.zeros(2))
    assert x.dtype == jnp.float32
    assert jax.tree.map(lambda a: (a.shape, a.dtype), before) == jax.tree.map(
        lambda a: (a.shape, a.dtype), after
    )
    floats = [a for a in jax.tree.leaves(after) if jnp.issubdtype(a.dtype, jnp.floating)]
    assert all(a.dtype == jnp.float32 for a in floats)


@pytest.mark.parametrize("kind", [dj.DPMSolverPP, dj.DPMSolverPPSingle, dj.UniPC, dj.DEIS])
@pytest.mark.parametrize("order", [0, 5])
def test_an_order_that_no_solver_has_is_refused(kind, order):
    with pytest.raises(ValueError, match=f"order is {order}; this solver has orders 1 to"):
        kind(order).init(jnp.ones((2, 3)), dj.trailing(4))


def test_order_1_is_ddim_and_eta_0_draws_nothing():
    """On the same grid, by every family."""
    process = dj.Gaussian(dj.Cosine())
    denoiser = oracle.denoiser(DATA, process, dj.V())
    x, times = oracle.normal(0, 3, 2), dj.trailing(6)
    firsts = (
        dj.DPMSolverPP(1),
        dj.DPMSolverPPSingle(1),
        dj.UniPC(1, corrector=False),
        dj.DEIS(1),
    )

    @jax.jit
    def run(key):
        return [dj.sample(key, s, process, denoiser, x, times) for s in (dj.DDIM(), *firsts)]

    ddim, *others = run(KEY)
    for sampler, found in zip(firsts, others, strict=True):
        np.testing.assert_allclose(found, ddim, atol=1e-5, err_msg=str(sampler))
    np.testing.assert_array_equal(ddim, run(jax.random.key(1))[0])


def test_eta_is_traced_and_1_is_ancestral_in_first_order():
    process = dj.Gaussian(dj.Cosine())
    denoiser = oracle.denoiser(DATA, process, dj.V())
    x, times = oracle.normal(0, 3, 2), dj.trailing(5)

    @jax.jit
    def run(sampler):
        return dj.sample(KEY, sampler, process, denoiser, x, times)

    zero, half, one = (run(dj.DPMSolverPP(1, eta=eta)) for eta in (0.0, 0.5, 1.0))
    assert run._cache_size() == 1
    np.testing.assert_allclose(zero, run(dj.DDIM()), atol=1e-5)
    np.testing.assert_allclose(one, run(dj.Ancestral()), atol=1e-4)
    assert np.abs(half - zero).max() > 0.01


def test_lower_order_final_ends_in_the_first_order():
    """Its last step is DDIM's, and the steps before are as without it."""
    process = dj.Gaussian(dj.Cosine())
    denoiser = oracle.denoiser(DATA, process, dj.V())
    x = oracle.normal(0, 3, 2)
    grid = jnp.array([0.9, 0.7, 0.5, 0.4, 0.3])
    pairs = [
        (dj.DPMSolverPP(2), dj.DPMSolverPP(2, lower_order_final=True)),
        (dj.DEIS(2), dj.DEIS(2, lower_order_final=True)),
    ]

    @jax.jit
    def run():
        def walk(sampler, x, times):
            return dj.sample(KEY, sampler, process, denoiser, x, times)

        return [
            (walk(low, x, grid), walk(dj.DDIM(), walk(plain, x, grid[:-1]), grid[-2:]))
            for plain, low in pairs
        ]

    for found, expected in run():
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_heun_makes_one_evaluation_in_its_last_step():
    process = dj.Gaussian(dj.Cosine())
    calls = []

    def denoiser(x, t):
        jax.debug.callback(lambda: calls.append(1))
        return oracle.denoiser(DATA, process, dj.V())(x, t)

    x = oracle.normal(0, 3, 2)
    jax.jit(lambda: dj.sample(KEY, dj.Heun(), process, denoiser, x, dj.trailing(4)))()
    jax.effects_barrier()
    assert len(calls) == 2 * 4 - 1


def test_dynamic_threshold():
    """Of 100 pixels the quantile is the threshold; few pixels outside leave plain clipping."""
    process = dj.Gaussian(dj.Cosine())
    rng = np.random.default_rng(0)
    wide = rng.uniform(-3, 3, (1, 10, 10, 1))
    narrow = np.clip(wide / 4, -0.7, 0.7)
    narrow[0, 0, 0, 0] = 2.0
    x0 = jnp.asarray(np.concatenate([wide, narrow]), jnp.float32)
    x, t = oracle.normal(2, *x0.shape), jnp.full(2, 0.5)

    def denoiser(x, t):
        return process.complete(x, t, x0)

    thresholded = dj.dynamic_threshold(denoiser, process, 0.9)(x, t)
    r = np.quantile(np.abs(x0[0]), 0.9)
    np.testing.assert_allclose(thresholded.x0[0], np.clip(x0[0], -r, r) / r, rtol=1e-5)
    np.testing.assert_allclose(thresholded.x0[1], np.clip(x0[1], -1, 1), rtol=1e-5)
    np.testing.assert_allclose(process.corrupt(*thresholded[:2], t), x, atol=1e-5)
    limited = dj.dynamic_threshold(denoiser, process, 0.9, maximum=1.0)(x, t)
    np.testing.assert_allclose(limited.x0, dj.clip(denoiser, process)(x, t).x0, rtol=1e-6)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_adaptive_reaches_the_exact_flow_from_1_to_0(schedule):
    """One step [1, 0]; the error falls with the tolerance; gradients are finite."""
    pytest.importorskip("diffrax", reason="needs the extra `ode`: diffrax")
    process = dj.Gaussian(SCHEDULES[schedule])
    denoiser = oracle.denoiser(DATA, process, dj.V())
    x, times = oracle.normal(0, 4, 2), jnp.array([1.0, 0.0])

    @jax.jit
    def run(sampler, x):
        return dj.sample(KEY, sampler, process, denoiser, x, times)

    exact = jax.jit(lambda: DATA.flow(process, x, jnp.ones(4), jnp.zeros(4)))()
    loose, tight = (
        np.abs(run(dj.Adaptive(tolerance, tolerance), x) - exact).max()
        for tolerance in (1e-1, 1e-5)
    )
    assert tight < 3e-3
    assert tight < loose
    if schedule == "cosine":
        gradient = jax.jit(jax.grad(lambda x: (run(dj.Adaptive(), x) ** 2).sum()))(x)
        assert np.all(np.isfinite(gradient))
