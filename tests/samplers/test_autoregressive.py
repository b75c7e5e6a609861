"""Codes drawn one by one, against chains whose probabilities are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.samplers.autoregressive import kept, sample_codes

START = jnp.log(jnp.array([0.5, 0.3, 0.2]))
MOVES = jnp.log(jnp.array([[0.1, 0.6, 0.3], [0.7, 0.1, 0.2], [0.25, 0.25, 0.5]]))


def chain(carry, code, i):
    return MOVES[code], carry


def draw(key, b=4096, count=3, **options):
    first = jnp.broadcast_to(START[None], (b, 3))
    return sample_codes(key, first, (), chain, count, **options)


def probabilities(temperature=1.0):
    """Of the 27 triples."""
    start = jax.nn.softmax(START / temperature)
    moves = jax.nn.softmax(MOVES / temperature, axis=-1)
    return np.asarray(jnp.einsum("a,ab,bc->abc", start, moves, moves)).ravel()


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_codes_are_as_frequent_as_they_should_be(temperature):
    codes = np.asarray(draw(jax.random.key(0), temperature=temperature))
    found = np.bincount(codes @ [9, 3, 1], minlength=27) / len(codes)
    wanted = probabilities(temperature)
    deviation = np.sqrt(wanted * (1 - wanted) / len(codes))
    assert np.all(np.abs(found - wanted) < 4.5 * deviation + 1e-9)


def test_no_temperature_takes_the_likeliest():
    np.testing.assert_array_equal(draw(jax.random.key(0), b=5, temperature=0.0), [[0, 1, 0]] * 5)


def test_an_example_depends_on_its_number_alone():
    many = draw(jax.random.key(3), b=64)
    few = draw(jax.random.key(3), b=4, index=jnp.array([40, 3, 17, 63]))
    np.testing.assert_array_equal(few, many[jnp.array([40, 3, 17, 63])])


def test_another_temperature_compiles_nothing():
    run = jax.jit(lambda key, temperature: draw(key, b=2, temperature=temperature, top_p=0.9))
    for temperature in (0.5, 0.0, 1.3):
        run(jax.random.key(0), temperature)
    assert run._cache_size() == 1


def test_top_k_and_top_p_keep_the_likeliest():
    logits = jnp.log(jnp.array([[0.5, 0.3, 0.15, 0.05], [0.05, 0.15, 0.3, 0.5]]))

    def left(**options):
        options = {"top_k": None, "top_p": None} | options
        return np.isfinite(kept(logits, **options)).sum(1).tolist()

    assert left(top_k=2) == [2, 2] and left(top_k=9) == [4, 4]
    assert left(top_p=0.5) == [1, 1] and left(top_p=0.51) == [2, 2] and left(top_p=1.0) == [4, 4]
    assert left(top_p=0.0) == [1, 1]
    assert left(top_p=0.5, temperature=3.0) == [2, 2]  # flatter: 0.38, 0.32, ...
    assert np.isfinite(kept(logits, 2, None))[1].tolist() == [False, False, True, True]


def test_what_cannot_be_drawn():
    for options in ({"count": 0}, {"top_k": 0}):
        with pytest.raises(ValueError, match="at least 1"):
            draw(jax.random.key(0), b=1, **options)
