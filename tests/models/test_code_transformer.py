"""Codes one by one: what their logits know, and that a cache changes nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.models.code_transformer import CodeTransformer
from diffusion_jax.samplers.autoregressive import sample_codes
from diffusion_jax.types import Condition
from tests.models.test_prior import shaken

B, COUNT = 3, 5
TOLD = {
    "class": Condition(vector=jnp.eye(4)[:B]),
    "text": Condition(
        tokens=jnp.arange(B * 3).reshape(B, 3) + 1, mask=jnp.ones((B, 3), bool).at[:, 2].set(False)
    ),
    "nothing": Condition(),
}
CODES = jax.random.randint(jax.random.key(1), (B, COUNT), 0, 7)


@pytest.fixture(scope="module", params=list(TOLD))
def made(request):
    """A network with parameters, and what it is told."""
    words = {"vocabulary": 12, "length": 3} if request.param == "text" else {}
    network = CodeTransformer(COUNT, 7, width=16, layers=2, heads=2, **words)
    condition = TOLD[request.param]
    return network, shaken(network.init(jax.random.key(0), CODES, condition)), condition


def test_a_cache_changes_no_logit(made):
    network, params, condition = made
    at_once = network.apply(params, CODES, condition)
    logits, cache = network.apply(params, condition, B, method="start")
    one_by_one = [logits]
    for i in range(COUNT - 1):
        code, place = CODES[:, i], jnp.asarray(i)
        logits, cache = network.apply(params, cache, code, place, method="following")
        one_by_one.append(logits)
    assert at_once.shape == (B, COUNT, 7) and np.std(at_once) > 0.3
    np.testing.assert_allclose(jnp.stack(one_by_one, 1), at_once, atol=2e-5)


def test_a_code_knows_those_before_it_alone(made):
    network, params, condition = made
    before = network.apply(params, CODES, condition)
    for i in range(COUNT):
        other = CODES.at[:, i].set((CODES[:, i] + 1) % 7)
        after = network.apply(params, other, condition)
        np.testing.assert_array_equal(after[:, : i + 1], before[:, : i + 1])
        assert i == COUNT - 1 or np.all(np.abs(after - before)[:, i + 1 :].max(-1) > 1e-4)


@pytest.mark.parametrize(
    ("kind", "other"),
    [
        ("class", Condition(vector=jnp.eye(4)[1 : B + 1])),
        ("text", TOLD["text"]._replace(tokens=TOLD["text"].tokens + 1)),
        ("text", TOLD["text"]._replace(mask=jnp.ones((B, 3), bool))),
    ],
)
def test_codes_know_what_is_told(kind, other):
    words = {"vocabulary": 12, "length": 3} if kind == "text" else {}
    network = CodeTransformer(COUNT, 7, width=16, layers=1, heads=2, **words)
    params = shaken(network.init(jax.random.key(0), CODES, TOLD[kind]))
    before, after = (network.apply(params, CODES, told) for told in (TOLD[kind], other))
    assert np.all(np.abs(after - before).max((1, 2)) > 1e-4)


def test_codes_are_drawn_as_they_are_predicted(made):
    """At temperature 0 each code is the likeliest after those before."""
    network, params, condition = made
    first, cache = network.apply(params, condition, B, method="start")

    def following(cache, code, i):
        return network.apply(params, cache, code, i, method="following")

    drawn = sample_codes(jax.random.key(0), first, cache, following, COUNT, temperature=0.0)
    logits = network.apply(params, drawn, condition)
    np.testing.assert_array_equal(logits.argmax(-1), drawn)


def test_texts_of_another_length_are_refused():
    network = CodeTransformer(COUNT, 7, 16, 1, 2, vocabulary=12, length=4)
    for told, found in ((TOLD["text"], 3), (TOLD["class"], "none")):
        with pytest.raises(ValueError, match=f"reads 4 tokens of a condition, which has {found}"):
            network.init(jax.random.key(0), CODES, told)


def test_conditions_that_are_not_read_are_refused():
    """A network that ignored them would learn without a condition, and say nothing."""
    network = CodeTransformer(COUNT, 7, width=16, layers=1, heads=2)
    words = TOLD["text"]
    for told, name in ((Condition(image=jnp.zeros((B, 2, 2, 1))), "image"), (words, "tokens")):
        with pytest.raises(ValueError, match=f"doesn't read a condition's {name}"):
            network.init(jax.random.key(0), CODES, told)
