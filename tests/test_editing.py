"""Editing: known pixels are kept, resampling makes the rest fit, inversion comes back."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffusion_jax as dj
from tests import oracle
from tests.oracle import normal

PROCESS = dj.Gaussian(dj.Cosine())
KEY = jax.random.key(0)
SHAPE = (3, 4, 4, 3)
KNOWN = jnp.clip(0.5 * normal(0, *SHAPE), -1.0, 1.0)
MASK = jnp.asarray(np.random.default_rng(1).random((3, 4, 4, 1)) < 0.4)
DATA = oracle.Independent(np.zeros((4, 4, 3)), np.full((4, 4, 3), 0.3))
TIMES = dj.trailing(6)


def denoiser(process=PROCESS):
    return functools.partial(DATA.posterior_mean, process)


@functools.partial(jax.jit, static_argnames="process")
def _walk(sampler, x, times, process, noise):
    return dj.sample(KEY, sampler, process, denoiser(process), x, times, noise=noise)


def walk(sampler, x, times, process=PROCESS, noise=None):
    """A sample with noise from NumPy, which has nothing to compile."""
    noise = normal(9, len(times) - 1, sampler.draws, *x.shape) if noise is None else noise
    return _walk(sampler, x, times, process, noise)


def test_known_pixels_are_kept_bit_for_bit_and_the_others_are_sampled():
    found = walk(dj.Replacement(dj.DDIM(), KNOWN, MASK), normal(2, *SHAPE), TIMES)
    known = np.broadcast_to(MASK, SHAPE)
    np.testing.assert_array_equal(np.asarray(found)[known], np.asarray(KNOWN)[known])
    assert np.all(np.asarray(found)[~known] != np.asarray(KNOWN)[~known])


def test_nothing_known_is_the_sampler_itself_and_all_known_the_picture():
    x, noise, one = normal(2, *SHAPE), normal(3, 6, 2, *SHAPE), jnp.ones((1, 1, 1, 1))
    plain = walk(dj.Ancestral(), x, TIMES, noise=noise[:, :1])
    for wrap in (dj.Replacement, dj.RePaint):
        nothing = walk(wrap(dj.Ancestral(), KNOWN[:1], 0 * one), x, TIMES, noise=noise)
        np.testing.assert_allclose(nothing, plain, atol=1e-5)
        everything = walk(wrap(dj.Ancestral(), KNOWN[:1], one), x, TIMES, noise=noise)
        np.testing.assert_array_equal(everything, jnp.broadcast_to(KNOWN[:1], SHAPE))


def test_before_the_end_the_known_part_is_the_picture_noised_to_there():
    """A grid that ends at 0.5, where a noise of its own is added to the known part."""
    times, noise = jnp.array([1.0, 0.7, 0.5]), normal(3, 2, 2, *SHAPE)
    found = walk(dj.Replacement(dj.DDIM(), KNOWN, MASK), normal(2, *SHAPE), times, noise=noise)
    noised = PROCESS.corrupt(KNOWN, noise[-1, -1], jnp.full(3, 0.5))
    known = np.broadcast_to(MASK, SHAPE)
    np.testing.assert_allclose(np.asarray(found)[known], np.asarray(noised)[known], rtol=1e-5)


def test_a_mask_in_between_mixes():
    half = dj.Replacement(dj.DDIM(), KNOWN, jnp.full((1, 1, 1, 1), 0.5))
    x, t, z = normal(2, *SHAPE), jnp.full(3, 0.3), normal(3, *SHAPE)
    found = half.replace(x, t, PROCESS, z)
    np.testing.assert_allclose(found, 0.5 * (x + PROCESS.corrupt(KNOWN, z, t)), atol=1e-6)


def test_a_process_of_frequencies_keeps_known_pixels_to_rounding():
    process = dj.blurring()
    x = walk(dj.Replacement(dj.DDIM(), KNOWN, MASK), normal(2, *SHAPE), TIMES, process)
    known = np.broadcast_to(MASK, SHAPE)
    found = np.asarray(process.decode(x))
    np.testing.assert_allclose(found[known], np.asarray(KNOWN)[known], atol=1e-5)
    assert np.abs(found - KNOWN)[~known].max() > 0.1


def test_at_the_end_no_noise_is_left_even_where_the_process_has_some():
    """Heat's sigma is the same at every t, t = 0 too."""
    process, x = dj.heat(), normal(2, *SHAPE)
    replacement = dj.Replacement(dj.Heat(), KNOWN, jnp.ones((1, 1, 1, 1)))
    for t, low, high in ((0.0, 0.0, 1e-5), (0.5, 1e-2, np.inf)):
        found = process.decode(replacement.replace(x, jnp.full(3, t), process, x))
        assert low <= np.abs(found - KNOWN).max() < high


def test_colourisation_keeps_grey_and_makes_colours():
    basis = dj.grey_basis()
    np.testing.assert_allclose(basis @ basis.T, np.eye(3), atol=1e-6)
    np.testing.assert_allclose(jnp.ones((1, 3)) @ basis.T, [[np.sqrt(3), 0, 0]], atol=1e-6)
    grey = jnp.broadcast_to(KNOWN.mean(-1, keepdims=True), SHAPE)
    mask = jnp.array([[[[1.0, 0.0, 0.0]]]])
    found = walk(dj.Replacement(dj.DDIM(), grey, mask, basis), normal(2, *SHAPE), TIMES)
    np.testing.assert_allclose(found.mean(-1), grey[..., 0], atol=1e-6)
    assert np.all(np.asarray(found).std(-1).mean((1, 2)) > 0.1)


@pytest.mark.parametrize("wrap", [dj.Replacement, dj.RePaint])
@pytest.mark.parametrize(
    ("known", "mask", "message"),
    [
        (KNOWN[:2], MASK, r"known has shape \(2, 4, 4, 3\) and x \(3, 4, 4, 3\)"),
        (KNOWN, MASK[0, :, :, 0], r"mask has shape \(4, 4\) and x"),
    ],
    ids=["known", "mask"],
)
def test_shapes_that_do_not_fit_are_refused(wrap, known, mask, message):
    with pytest.raises(ValueError, match=message):
        wrap(dj.DDIM(), known, mask).init(KNOWN, TIMES)


@pytest.mark.parametrize(
    ("known", "mask", "basis", "message"),
    [
        (KNOWN, 255 * MASK, None, "the mask is 255; it must be from 0 to 1"),
        (KNOWN, jnp.nan * MASK, None, "the mask is nan"),
        (KNOWN.astype(jnp.uint8), MASK, None, "known is uint8; pixels are floating point"),
        (KNOWN, MASK, jnp.eye(2), r"basis has shape \(2, 2\) and x .* it must be \[c c\]"),
    ],
    ids=["levels", "nan", "integers", "basis"],
)
def test_known_pictures_masks_and_colours_of_another_kind_are_refused(known, mask, basis, message):
    def begin(x):
        return dj.RePaint(dj.DDIM(), known, mask, basis).init(x, TIMES)

    for way in (begin, lambda x: jax.eval_shape(begin, x)):
        with pytest.raises(ValueError, match=message):
            way(KNOWN)


@pytest.mark.parametrize(
    ("t", "message"),
    [
        (1.5, "the strength t is 1.5; it must be from 0 to 1"),
        (jnp.nan, "the strength t is nan"),
        (jnp.full(2, 0.5), r"the strength t has shape \(2,\)"),
    ],
    ids=["high", "nan", "batch"],
)
def test_strengths_out_of_range_are_refused(t, message):
    with pytest.raises(ValueError, match=message):
        dj.renoise(KEY, PROCESS, KNOWN, t)


@pytest.mark.parametrize(
    ("times", "message"),
    [
        (TIMES[::-1], "times runs from 0 to 1; it must descend"),
        (jnp.array([1.0, jnp.nan, 0.0]), "it must descend"),
        (TIMES[:1], r"times has shape \(1,\); a grid is"),
    ],
    ids=["ascending", "nan", "one"],
)
def test_grids_that_are_edited_descend(times, message):
    for edit in (lambda: dj.repaint_grid(times, 1, 2), lambda: dj.inversion_grid(times, 1e-3)):
        with pytest.raises(ValueError, match=message):
            edit()


def steps_of(grid, n):
    """A grid of multiples of 1/n as numbers of steps from its end."""
    return np.round(np.asarray(grid) * n).astype(int)


def test_one_resample_is_the_grid_itself():
    np.testing.assert_array_equal(dj.repaint_grid(dj.trailing(9), 4, 1), dj.trailing(9))


@pytest.mark.parametrize(("n", "jump", "resamples"), [(5, 1, 3), (9, 4, 2), (10, 4, 3), (7, 6, 5)])
def test_every_stretch_that_has_a_jump_is_walked_again(n, jump, resamples):
    """Down by single steps, up by whole jumps, never up from clean data."""
    walk = steps_of(dj.repaint_grid(dj.trailing(n), jump, resamples), n)
    moves = np.diff(walk)
    assert set(moves) == {-1, jump}
    assert walk[0] == n and walk[-1] == 0 and np.count_nonzero(walk == 0) == 1
    covered = jump * ((n - 1) // jump)  # from 1 up, what whole jumps cover
    for place in range(n):
        visits = np.count_nonzero(walk[1:][moves == -1] == place)
        assert visits == (resamples if 1 <= place <= covered else 1), place


@pytest.mark.parametrize(
    ("jump", "resamples", "message"),
    [(0, 2, "jump is 0"), (4, 2, "has 4 steps; a jump is from 1 to 3"), (1, 0, "resamples is 0")],
)
def test_jumps_that_do_not_fit_are_refused(jump, resamples, message):
    with pytest.raises(ValueError, match=message):
        dj.repaint_grid(dj.trailing(4), jump, resamples)


def test_a_rise_is_the_forward_process_and_asks_no_denoiser():
    def broken(x, t):
        return dj.Prediction(x + jnp.nan, x + jnp.nan)

    x, noise = normal(2, *SHAPE), normal(3, 1, 2, *SHAPE)
    sampler = dj.RePaint(dj.Ancestral(), KNOWN, MASK)
    times = jnp.array([0.3, 0.8])
    found = dj.sample(KEY, sampler, PROCESS, broken, x, times, noise=noise)
    r, v = dj.transition(PROCESS, jnp.full(3, 0.3), jnp.full(3, 0.8), x)
    np.testing.assert_allclose(found, r * x + jnp.sqrt(v) * noise[0, 1], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("inner", [dj.DPMSolverPP(2), dj.UniPC(2)], ids=oracle.name)
def test_after_a_rise_a_solver_begins_anew(inner):
    """The whole walk is its two halves one after the other, which share no history."""
    sampler = dj.RePaint(inner, KNOWN, MASK)
    times = jnp.array([0.9, 0.7, 0.5, 0.8, 0.6, 0.4, 0.2])
    x, noise = normal(2, *SHAPE), normal(3, 6, sampler.draws, *SHAPE)
    whole = walk(sampler, x, times, noise=noise)
    up = walk(sampler, x, times[:4], noise=noise[:3])
    np.testing.assert_allclose(whole, walk(sampler, up, times[3:], noise=noise[3:]), atol=1e-5)


COVARIANCE = 0.9 ** np.abs(np.subtract.outer(np.arange(3), np.arange(3)))  # neighbours: 0.9
LINE = oracle.Correlated(np.zeros(3), COVARIANCE)
FIRST = jnp.array([[1.0, 0.0, 0.0]])


def inpainting_errors(resamples, jump=5, steps=20):
    """How far the law of the unknown two of three neighbours given the first is from the exact.

    With the exact denoiser every step is affine in the known value, in x_1 and in the noise, so
    a batch of unit vectors reads off the regression on the known value and the covariance that
    is left: there is no Monte-Carlo error.
    """
    times = dj.repaint_grid(dj.trailing(steps), jump, resamples)
    walked = len(times) - 1
    units = np.eye(1 + 3 + 2 * walked * 3, dtype=np.float32)
    known, x, z = units[:, :1], units[:, 1:4], units[:, 4:].reshape(-1, walked, 2, 3)

    @jax.jit
    def run(known, x, z):
        sampler = dj.RePaint(dj.Ancestral(), known, FIRST)
        exact = oracle.denoiser(LINE, PROCESS, dj.V())
        return dj.sample(KEY, sampler, PROCESS, exact, x, times, noise=z)

    rows = np.asarray(run(known * FIRST, x, jnp.asarray(z.transpose(1, 2, 0, 3))))
    np.testing.assert_array_equal(rows[:, 0], known[:, 0])
    regression = COVARIANCE[1:, :1] / COVARIANCE[0, 0]
    left = COVARIANCE[1:, 1:] - regression @ COVARIANCE[:1, 1:]
    mean_error = np.abs(rows[0, 1:] - regression[:, 0]).max()
    return mean_error, np.abs(rows[1:, 1:].T @ rows[1:, 1:] - left).max()


def test_resampling_brings_the_unknown_closer_to_its_law_given_the_known():
    """Without, the neighbour follows the known value by about half of what it should."""
    once, some, many = (inpainting_errors(r) for r in (1, 4, 10))
    assert once[0] > 0.3
    assert some[0] < 0.5 * once[0] and many[0] < 0.7 * some[0]
    assert some[1] < 0.5 * once[1] and many[1] < some[1]


def test_renoise_is_the_forward_process_with_a_noise_of_its_own():
    """White, and another than the prior's and the first step's of `sample` with the same key."""
    shape = (400, 16)

    @jax.jit
    def streams():
        nothing = jnp.zeros(shape)
        # A step from t = 1 to 0.5 with an x0 and a noise of 0 is its fresh noise alone.
        silent = functools.partial(dj.sample, KEY, dj.DDIM(1.0), PROCESS)
        step = silent(lambda x, t: dj.Prediction(0 * x, 0 * x), nothing, jnp.array([1.0, 0.5]))
        z = dj.renoise(KEY, PROCESS, nothing, 1.0)
        return z, dj.draw_prior(KEY, PROCESS, shape), step / step.std()

    flat = np.stack([np.ravel(v) for v in streams()])
    bound = 5 / np.sqrt(flat.shape[1])
    assert np.abs(flat.mean(1)).max() < bound
    assert np.abs(flat @ flat.T / flat.shape[1] - np.eye(len(flat))).max() < bound * np.sqrt(2)


renoise = jax.jit(dj.renoise, static_argnums=1)


def test_renoised_pictures_by_strength_index_and_coordinates():
    x = renoise(KEY, PROCESS, KNOWN, jnp.array([0.0, 0.4, 1.0]))
    np.testing.assert_array_equal(x[0], KNOWN[0])
    alpha, sigma = PROCESS.scales(jnp.full(1, 0.4), KNOWN[:1])
    z = (x[1:2] - alpha * KNOWN[1:2]) / sigma
    again = renoise(KEY, PROCESS, KNOWN[1:2], 0.4, index=jnp.array([1]))
    np.testing.assert_allclose(again[0], x[1], atol=1e-6)
    spectral = dj.blurring()
    np.testing.assert_allclose(
        renoise(KEY, spectral, KNOWN, 0.0), spectral.encode(KNOWN), atol=1e-6
    )
    assert 0.5 < z.std() < 1.5


def test_a_small_strength_stays_near_the_picture_and_a_large_one_leaves_it():
    @jax.jit
    def edited(strength):
        x = dj.renoise(KEY, PROCESS, KNOWN, strength)
        return dj.sample(KEY, dj.DDIM(), PROCESS, denoiser(), x, strength * dj.trailing(20))

    far = [np.abs(edited(s) - KNOWN).mean() for s in (0.05, 0.3, 0.6, 1.0)]
    assert np.all(np.diff(far) > 0.02)


def test_inversion_and_back_loses_less_with_more_steps():
    x0 = LINE.draw(jax.random.key(1), 6)

    @jax.jit
    def error(times):
        exact = oracle.denoiser(LINE, PROCESS, dj.X0())
        grid = dj.inversion_grid(times, 1e-3)
        none = jnp.zeros((len(times) - 1, 1, *x0.shape))  # compiles faster than what isn't used
        walk = functools.partial(dj.sample, KEY, dj.DDIM(), PROCESS, exact, noise=none)
        return jnp.abs(walk(walk(x0, grid), grid[::-1]) - x0).max()

    errors = [float(error(dj.trailing(n))) for n in (25, 50, 100)]
    assert errors[2] < 0.1
    assert errors[1] < 0.7 * errors[0] and errors[2] < 0.7 * errors[1]


@pytest.mark.parametrize("start", [0.0, 0.25, 0.3])
def test_an_inversion_starts_inside_the_last_step(start):
    with pytest.raises(ValueError, match=rf"start is {start:g}; .* begins at 0.25"):
        dj.inversion_grid(dj.trailing(4), start)
