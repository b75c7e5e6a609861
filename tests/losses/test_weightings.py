"""Weightings: the same for every parameterization, and what each paper says in its own terms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffusion_jax as dj
from tests.oracle import PARAMETERIZATIONS, name

ALL = (*PARAMETERIZATIONS, dj.EDM(), dj.LearnedVariance(dj.V()))
WEIGHTINGS = {
    "simple": dj.simple,
    "elbo": dj.elbo,
    "p2": dj.P2(gamma=0.5),
    "min_snr": dj.MinSNR(),
    "edm": dj.EDMWeighting(),
    "sigmoid": dj.SigmoidWeighting(),
}
SCHEDULES = (dj.LinearBeta(), dj.VE())
T = jnp.asarray([0.0505, 0.3215, 0.7005, 0.9805])  # off a table's knots
X = jnp.ones((4, 2))


@pytest.mark.parametrize("schedule", SCHEDULES, ids=name)
def test_one_loss_whatever_the_network_predicts(x64, schedule):
    """Errors of y are proportional to det, so w det^2 must be the same for all."""
    process, t = dj.Gaussian(schedule), T.astype(float)

    @jax.jit
    def run():
        def weighed(weighting, p):
            alpha, sigma = process.scales(t, X)
            a, b = p.coefficients(process, t, X)
            return weighting(process, p, t, X) * (alpha * b - sigma * a) ** 2

        return {k: jnp.stack([weighed(w, p) for p in ALL]) for k, w in WEIGHTINGS.items()}

    for label, values in run().items():
        assert np.all(values > 0), label
        np.testing.assert_allclose(
            values, np.broadcast_to(values[:1], values.shape), rtol=1e-6, err_msg=label
        )


@pytest.mark.parametrize("schedule", SCHEDULES, ids=name)
def test_each_is_its_papers(x64, schedule):
    process, t, h = dj.Gaussian(schedule), T.astype(float), 1e-5
    log_snr = np.asarray(process.log_snr(t))[:, None]
    snr = np.exp(log_snr)
    slope = (process.log_snr(t + h) - process.log_snr(t - h))[:, None] / (2 * h)
    edm = dj.EDM(sigma_data=0.7)
    expected = [
        (dj.simple, dj.Noise(), np.ones((4, 1))),
        (dj.elbo, dj.Noise(), -slope / 2),
        (dj.P2(gamma=0.5, k=2.0), dj.Noise(), (2 + snr) ** -0.5),
        (dj.MinSNR(3.0), dj.X0(), np.minimum(snr, 3.0)),
        (dj.MinSNR(3.0), dj.Noise(), np.minimum(snr, 3.0) / snr),
        (dj.EDMWeighting(0.7), edm, np.ones((4, 1))),
        (dj.EDMWeighting(0.7), dj.X0(), snr + 1 / 0.49),
        (dj.SigmoidWeighting(1.0), dj.Noise(), -slope / 2 / (1 + np.exp(log_snr - 1.0))),
    ]
    for weighting, parameterization, want in expected:
        found = weighting(process, parameterization, t, X)
        np.testing.assert_allclose(found, want, rtol=1e-5, err_msg=repr(weighting))


def test_min_snr_of_v_is_divided_by_snr_plus_1(x64):
    process, t = dj.Gaussian(dj.Cosine()), T.astype(float)
    snr = np.exp(np.asarray(process.log_snr(t)))[:, None]
    found = dj.MinSNR(5.0)(process, dj.V(), t, X)
    np.testing.assert_allclose(found, np.minimum(snr, 5.0) / (snr + 1), rtol=1e-9)


def test_finite_at_both_ends():
    t = jnp.array([0.0, 1e-6, 1.0], jnp.float32)

    @jax.jit
    def run(t):
        def values(t):
            return [
                w(dj.Gaussian(schedule), p, t, t)
                for schedule in (dj.Cosine(), dj.VE())
                for w in WEIGHTINGS.values()
                for p in (dj.V(), dj.Noise())
            ]

        out, pull = jax.vjp(lambda t: jnp.stack(values(t)), t)
        return out, pull(jnp.ones_like(out))

    values, (gradient,) = run(t)
    assert np.all(np.isfinite(values)) and np.all(values >= 0)
    assert np.all(np.isfinite(gradient))
