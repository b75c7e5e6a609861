"""Vectors as codes: what is lost, what is kept, what is refused."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.quantization import fit_codes, fit_edges


def vectors(n=400, d=6, seed=0):
    """Of falling variance along hidden axes, far from the origin."""
    rng = np.random.default_rng(seed)
    turn, _ = np.linalg.qr(rng.normal(size=(d, d)))
    return rng.normal(size=(n, d)) * 2.0 ** -np.arange(d) @ turn + 3.0


def test_all_components_lose_half_a_bucket_at_most():
    z = vectors()
    codes = fit_codes(z, variance=1.0, buckets=64)
    given = jnp.asarray(z, jnp.float32)
    lost = codes.components(codes.decode(codes.encode(given))) - codes.components(given)
    assert codes.axes.shape == (6, 6)
    assert np.all(np.abs(lost) <= np.asarray(0.5 * codes.width + 1e-5))


def test_a_decoded_code_is_itself():
    codes = fit_codes(vectors(), variance=1.0, buckets=16)
    some = jax.random.randint(jax.random.key(0), (50, 6), 0, 16)
    np.testing.assert_array_equal(codes.encode(codes.decode(some)), some)


@pytest.mark.parametrize("variance", [0.5, 0.9, 0.99])
def test_as_few_components_as_keep_the_share(variance):
    z = vectors()
    shares = np.sort(np.linalg.eigvalsh(np.cov(z.T)))[::-1]
    shares = np.cumsum(shares) / shares.sum()
    kept = len(fit_codes(z, variance=variance).axes)
    assert shares[kept - 1] >= variance and (kept == 1 or shares[kept - 2] < variance)


def test_the_first_components_say_the_most():
    codes = fit_codes(vectors(), variance=1.0)
    z = jnp.asarray(vectors(), jnp.float32)
    errors = [
        float(jnp.square(codes.from_components(codes.components(z)[:, :k]) - z).mean())
        for k in range(7)
    ]
    assert all(later < earlier for earlier, later in itertools.pairwise(errors))
    assert errors[-1] < 1e-8


def test_the_order_of_vectors_changes_no_code():
    """Nor may another machine, whose axes may come out with the other sign."""
    z = vectors()
    one, other = fit_codes(z, buckets=32), fit_codes(z[::-1], buckets=32)
    np.testing.assert_allclose(one.axes, other.axes, atol=1e-6)
    assert np.all(np.abs(one.axes).max(1) == one.axes.max(1))


def test_outside_of_the_buckets_is_the_nearest_one():
    codes = fit_codes(vectors(), variance=1.0, buckets=8)
    far = codes.from_components(jnp.stack([codes.low - 100.0, codes.low + 1000.0]))
    np.testing.assert_array_equal(codes.encode(far), [[0] * 6, [7] * 6])


@pytest.mark.parametrize(
    ("z", "options", "said"),
    [
        (np.zeros((5, 3)), {}, "all alike"),
        (np.ones((1, 3)), {}, r"not \[1, 3\]"),
        (np.full((4, 3), np.nan), {}, "finite"),
        (vectors(), {"variance": 0.0}, "variance is 0.0"),
        (vectors(), {"variance": 1.5}, "variance is 1.5"),
        (vectors(), {"buckets": 0}, "buckets 0"),
        (vectors(), {"count": 7}, "7 components were asked for; there are 6"),
    ],
)
def test_what_codes_cannot_be_fitted_to(z, options, said):
    with pytest.raises(ValueError, match=said):
        fit_codes(z, **options)


def test_edges_cut_into_equal_parts():
    values = np.random.default_rng(0).normal(size=1600)
    found = np.bincount(np.searchsorted(fit_edges(values, 16), values), minlength=16)
    np.testing.assert_allclose(found, 100, atol=1)
