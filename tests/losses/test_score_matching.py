"""Score matching: on Gaussian data every loss is stationary at the true score, and only there."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffusion_jax as dj

MEAN = np.array([0.5, -1.0])
COVARIANCE = np.array([[1.0, 0.4], [0.4, 0.5]])
SCALES = (2.0, 0.5, 0.1)


def data(count=500):
    """Points whose mean and covariance are exactly the above: no Monte-Carlo error of the data."""
    z = np.random.default_rng(0).normal(size=(count, 2))
    z = z - z.mean(0)
    z = z @ np.linalg.inv(np.linalg.cholesky(z.T @ z / count)).T
    return jnp.asarray(MEAN + z @ np.linalg.cholesky(COVARIANCE).T, jnp.float32)


def linear(params, x):
    """grad log N(x; mean, covariance) is linear: A x + c."""
    return x @ params["a"].T + params["c"][None]


def linear_at(params, x, i):
    return jnp.einsum("bij,bj->bi", params["a"][i], x) + params["c"][i]


def truth(covariance):
    a = -np.linalg.inv(covariance)
    return {"a": jnp.asarray(a, jnp.float32), "c": jnp.asarray(-a @ MEAN, jnp.float32)}


def truths():
    each = [truth(COVARIANCE + s**2 * np.eye(2)) for s in SCALES]
    return jax.tree.map(lambda *p: jnp.stack(p), *each)


LOSSES = {
    "explicit": (dj.explicit_score_matching(linear), truth(COVARIANCE), False),
    "sliced": (dj.sliced_score_matching(linear, slices=2), truth(COVARIANCE), True),
    "reduced": (dj.sliced_score_matching_vr(linear, slices=2), truth(COVARIANCE), True),
    "denoising": (dj.denoising_score_matching(linear_at, SCALES), truths(), True),
}
every = pytest.mark.parametrize("label", LOSSES)


@functools.cache
def runner(label):
    """params -> values and gradients of 400 independent draws, gradients flat."""
    loss, _, _ = LOSSES[label]
    batch = {"image": data()}

    @jax.jit
    def run(params):
        def one(key):
            value, gradient = jax.value_and_grad(lambda p: loss(p, (), key, batch)[0])(params)
            return value, jnp.concatenate([g.reshape(-1) for g in jax.tree.leaves(gradient)])

        return jax.lax.map(one, jax.random.split(jax.random.key(0), 400))

    return lambda params: tuple(np.asarray(v, np.float64) for v in run(params))


@every
def test_gradient_is_zero_at_the_true_score(label):
    _, true, random = LOSSES[label]
    _, gradients = runner(label)(true)
    spread = gradients.std(0) / np.sqrt(len(gradients)) if random else 0.0
    assert np.all(np.abs(gradients.mean(0)) < 5 * spread + 1e-4)


@every
def test_elsewhere_the_loss_is_larger(label):
    _, true, _ = LOSSES[label]
    best, _ = runner(label)(true)
    for wrong in (
        {**true, "a": 1.3 * true["a"]},
        {**true, "a": 0.7 * true["a"]},
        {**true, "c": true["c"] + 0.5},
    ):
        worse, gradients = runner(label)(wrong)
        apart = worse - best  # the same draws
        assert apart.mean() > 5 * apart.std() / np.sqrt(len(apart))
        spread = gradients.std(0) / np.sqrt(len(gradients))
        assert np.any(np.abs(gradients.mean(0)) > 5 * spread + 1e-3)


def test_the_reduced_form_has_the_same_mean_and_no_noise_from_the_norm():
    plain, reduced = (runner(label)(truth(COVARIANCE))[0] for label in ("sliced", "reduced"))
    apart = plain - reduced
    assert abs(apart.mean()) < 5 * apart.std() / np.sqrt(len(apart))
    exact = runner("explicit")(truth(COVARIANCE))[0][0]
    assert abs(reduced.mean() - exact) < 5 * reduced.std() / np.sqrt(len(reduced))
    # A score without derivative leaves the reduced form nothing random.
    flat = {**truth(COVARIANCE), "a": jnp.zeros((2, 2))}
    plain, reduced = (runner(label)(flat)[0] for label in ("sliced", "reduced"))
    assert reduced.std() < 1e-3 * plain.std()
    np.testing.assert_allclose(plain.mean(), reduced[0], atol=5 * plain.std() / np.sqrt(400))


def test_scales_are_weighed_alike_by_their_square():
    """lambda(i) = sigma_i^2: at a score of 0 every scale has the loss E|z|^2 / 2 = 1."""

    def zero(params, x, i):
        return jnp.zeros_like(x)

    batch = {"image": data()}
    for scale in (10.0, 1e-3):
        loss = dj.denoising_score_matching(zero, [scale])
        value, _ = loss({}, (), jax.random.key(0), batch)
        assert abs(float(value) - 1.0) < 5 / np.sqrt(500)


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="positive"):
        dj.denoising_score_matching(linear_at, [1.0, 0.0])
    with pytest.raises(ValueError, match="slices is 0"):
        dj.sliced_score_matching(linear, slices=0)
    with pytest.raises(ValueError, match="sigma_min 2"):
        dj.geometric_scales(3, 1.0, 2.0)
