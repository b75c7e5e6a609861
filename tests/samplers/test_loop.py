"""`sample`: its noise, its example numbers, its grids and its precision."""

import functools
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffusion_jax as dj
from diffusion_jax.samplers import loop
from tests import oracle

PROCESS = dj.Gaussian(dj.Cosine())
DATA = oracle.correlated(3)
DENOISER = oracle.denoiser(DATA, PROCESS, dj.V())
KEY = jax.random.key(0)


@functools.partial(jax.tree_util.register_dataclass, data_fields=[], meta_fields=["draws"])
@dataclass(frozen=True)
class Recorder:
    """A sampler that takes no step and keeps the noises it asked for in its state, instead of x."""

    draws: int = 1

    def init(self, x, times):
        return ()

    def step(self, x, state, t, s, denoiser, process, noise):
        return 10 * x + sum(noise(j) for j in range(self.draws)), state


@functools.partial(jax.jit, static_argnames=("steps", "draws", "shape"))
def recorded(key, index, steps=1, draws=1, shape=(4,)):
    x = jnp.zeros((index.shape[0], *shape))
    times = jnp.linspace(1.0, 0.0, steps + 1)
    return dj.sample(key, Recorder(draws), PROCESS, DENOISER, x, times, index=index)


@functools.partial(jax.jit, static_argnums=1)
def prior(key, shape, index=None):
    return dj.draw_prior(key, PROCESS, shape, index=index)


@functools.partial(jax.jit, static_argnames="steps")
def run(key, x, sampler, index=None, steps=4):
    times = dj.trailing(steps)
    return dj.sample(key, sampler, PROCESS, DENOISER, x, times, index=index)


@functools.cache
def start(count=6):
    return oracle.normal(0, count, 3)


def test_noise_of_an_example_is_the_same_in_any_batch_bit_for_bit():
    whole = recorded(KEY, jnp.arange(8), steps=3)
    for some in (jnp.array([5]), jnp.array([7, 2])):
        np.testing.assert_array_equal(recorded(KEY, some, steps=3), whole[some])
    some = jnp.array([6, 1])
    np.testing.assert_array_equal(prior(KEY, (2, 4), some), prior(KEY, (8, 4))[some])


def test_noise_is_white_across_examples_pixels_steps_and_draws():
    """Standard normal, and no two of step 0, step 1, draw 1, the prior, another key agree."""
    count, pixels = 400, 16
    index, shape = jnp.arange(count), (pixels,)
    first = recorded(KEY, index, shape=shape)
    streams = {
        "first step": first,
        "second step": recorded(KEY, index, steps=2, shape=shape) - 10 * first,
        "second draw": recorded(KEY, index, draws=2, shape=shape) - first,
        "prior": prior(KEY, (count, pixels)),
        "other key": recorded(jax.random.key(1), index, shape=shape),
        "other examples": recorded(KEY, index + count, shape=shape),
        "shifted pixels": jnp.roll(first, 1, axis=1),
        "shifted examples": jnp.roll(first, 1, axis=0),
    }
    flat = np.stack([np.asarray(s).ravel() for s in streams.values()])
    bound = 5 / np.sqrt(flat.shape[1])
    assert np.abs(flat.mean(1)).max() < bound
    correlation = flat @ flat.T / flat.shape[1]
    assert np.abs(correlation - np.eye(len(flat))).max() < bound * np.sqrt(2), streams.keys()


def test_given_noise_replaces_the_keys():
    """The noise that a key would draw, given, makes the same sample; the key isn't read then."""
    x, times, sampler = start(2), jnp.array([1.0, 0.6, 0.3]), dj.Ancestral()
    one, two = (recorded(KEY, jnp.arange(2), steps=n, shape=(3,)) for n in (1, 2))
    noise = jnp.stack([one, two - 10 * one])[:, None]

    @jax.jit
    def given(key):
        return dj.sample(key, sampler, PROCESS, DENOISER, x, times, noise=noise)

    drawn = jax.jit(lambda key: dj.sample(key, sampler, PROCESS, DENOISER, x, times))
    np.testing.assert_allclose(given(KEY), drawn(KEY), atol=1e-5)
    np.testing.assert_array_equal(given(KEY), given(jax.random.key(5)))


def test_examples_do_not_depend_on_their_batch_bit_for_bit():
    """Shuffled among other examples, under one program, every example is the same picture."""
    x, sampler = start(), dj.Ancestral()
    whole = run(KEY, x, sampler, jnp.arange(6))
    order = jnp.array([4, 0, 5, 2, 1, 3])
    np.testing.assert_array_equal(run(KEY, x[order], sampler, order), whole[order])
    other = x.at[1:].add(1.0)
    np.testing.assert_array_equal(run(KEY, other, sampler, jnp.arange(6))[0], whole[0])
    np.testing.assert_allclose(
        run(KEY, x[2:4], sampler, jnp.array([2, 3])), whole[2:4], rtol=1e-5, atol=1e-6
    )


def test_example_numbers_are_counted_from_0_by_default():
    x, sampler = start(), dj.Ancestral()
    np.testing.assert_array_equal(run(KEY, x, sampler), run(KEY, x, sampler, jnp.arange(6)))
    assert np.all(run(KEY, x, sampler) != run(KEY, x, sampler, jnp.arange(6) + 1))


def test_same_key_same_picture_and_another_key_another():
    x = start()
    np.testing.assert_array_equal(run(KEY, x, dj.Ancestral()), run(KEY, x, dj.Ancestral()))
    assert np.all(run(KEY, x, dj.Ancestral()) != run(jax.random.key(1), x, dj.Ancestral()))
    deterministic = run(KEY, x, dj.DDIM())
    np.testing.assert_array_equal(deterministic, run(jax.random.key(1), x, dj.DDIM()))


def test_ascending_grid_inverts():
    """Data to noise to data: DDIM comes back, closer with more steps, through the exact x_1."""
    x0 = start()

    @jax.jit
    def there_and_back():
        errors = []
        for steps in (50, 200):
            times = dj.trailing(steps)
            walk = functools.partial(dj.sample, KEY, dj.DDIM(), PROCESS, DENOISER)
            low = PROCESS.corrupt(x0, jnp.zeros_like(x0), jnp.full(6, times[-2]))
            code = walk(low, times[:-1][::-1])
            exact = DATA.flow(PROCESS, low, jnp.full(6, times[-2]), jnp.ones(6))
            errors.append(
                (jnp.abs(walk(code, times[:-1]) - low).max(), jnp.abs(code - exact).max())
            )
        return errors

    coarse, fine = there_and_back()
    for few, many in zip(coarse, fine, strict=True):
        assert many < 0.1
        assert many < few / 2


def test_grid_may_end_above_0():
    """Stopped at t = 0.4, DDIM is at the exact flow's x_0.4."""
    x = start()

    @jax.jit
    def both():
        times = jnp.linspace(1.0, 0.4, 101)
        found = dj.sample(KEY, dj.DDIM(), PROCESS, DENOISER, x, times)
        return found, DATA.flow(PROCESS, x, jnp.ones(6), jnp.full(6, 0.4))

    np.testing.assert_allclose(*both(), atol=0.03)


def test_last_step_to_data_adds_no_noise():
    """At sigma_s = 0 the samplers answer x0 itself, whatever the noise and the variance."""
    x, times = start(), jnp.array([0.5, 0.0])
    samplers = (dj.DDIM(), dj.DDIM(1.0), dj.Ancestral(), dj.Ancestral(dj.fixed_large))

    @jax.jit
    def ends():
        found = [dj.sample(KEY, s, PROCESS, DENOISER, x, times) for s in samplers]
        return found, DENOISER(x, jnp.full(6, 0.5)).x0

    found, expected = ends()
    for sampler, end in zip(samplers, found, strict=True):
        np.testing.assert_allclose(end, expected, atol=1e-6, err_msg=str(sampler))


@pytest.mark.parametrize(
    ("given", "computed"), [("bfloat16", "float32"), ("float32", "float32"), ("float64",) * 2]
)
def test_precision_is_float32_or_that_of_x(x64, given, computed):
    x = start().astype(given)
    found = jax.eval_shape(lambda: run(KEY, x, dj.Ancestral()))
    assert found.dtype == computed


def test_float64_is_more_than_float32(x64):
    """The same problem in both precisions differs by float32's rounding, and by no more."""
    x = start().astype(jnp.float64)
    double, single = run(KEY, x, dj.DDIM()), run(KEY, x.astype(jnp.float32), dj.DDIM())
    assert double.dtype == jnp.float64
    assert 0 < np.abs(double - single).max() < 1e-5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"times": jnp.ones(1)}, r"times has shape \(1,\); a grid is \[n \+ 1\]"),
        ({"times": jnp.ones((2, 2))}, r"times has shape \(2, 2\)"),
        ({"times": jnp.arange(999.0, -1.0, -250.0)}, r"times lie in \[0, 1\]"),
        ({"times": jnp.array([1.0, -0.1])}, r"times runs from 1 to -0.1"),
        ({"index": jnp.arange(5)}, r"index has shape \(5,\); x has 6 examples"),
        ({"noise": jnp.zeros((2, 1, 6, 3))}, r"noise has shape \(2, 1, 6, 3\); .* \(4, 1, 6, 3\)"),
        ({"noise": jnp.zeros((4, 2, 6, 3))}, r"noise has shape \(4, 2, 6, 3\)"),
        ({"noise": jnp.zeros((4, 1, 5, 3))}, r"noise has shape \(4, 1, 5, 3\)"),
    ],
)
def test_wrong_shapes_are_named(arguments, message):
    """The check itself: under test the annotations of `sample` would catch some before it does."""
    good = {"times": dj.trailing(4), "index": jnp.arange(6), "noise": None}
    with pytest.raises(ValueError, match=message):
        loop._check_shapes(dj.DDIM(), start(), **{**good, **arguments})


def test_sample_checks_its_shapes():
    noise = jnp.zeros((3, 1, 6, 3))
    with pytest.raises(ValueError, match=r"noise has shape .* \(4, 1, 6, 3\)"):
        dj.sample(KEY, dj.DDIM(), PROCESS, DENOISER, start(), dj.trailing(4), noise=noise)
