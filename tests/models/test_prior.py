"""unCLIP's priors: what their tokens know, and that a cache changes nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.models.prior import CodePrior, DiffusionPrior
from diffusion_jax.models.text_conditioning import Prompt, one_of
from diffusion_jax.types import Condition

SIZES = dict(features=6, vocabulary=20, length=5, width=16, layers=2, heads=2)
PROMPT = Prompt(20, 5, 6, drop=0.5)


def known(b=3, seed=0):
    keys = jax.random.split(jax.random.key(seed))
    tokens = jax.random.randint(keys[0], (b, 5), 1, 20).at[:, 4].set(0)
    z = jax.random.normal(keys[1], (b, 6))
    return {"tokens": tokens, "text_embedding": z / jnp.linalg.norm(z, axis=1, keepdims=True)}


def shaken(params):
    """Parameters of which none is 0: what a layer reads shows."""
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(9), len(leaves))
    noise = [0.3 * jax.random.normal(k, x.shape) for k, x in zip(keys, leaves, strict=True)]
    return jax.tree.unflatten(tree, [x + n for x, n in zip(leaves, noise, strict=True)])


@pytest.fixture(scope="module")
def code_prior():
    network = CodePrior(**SIZES, count=4, buckets=7, alignments=3)
    condition = PROMPT.condition(known())
    params = network.init(jax.random.key(0), jnp.zeros((3, 4), int), condition, jnp.zeros(3, int))
    return network, shaken(params), condition


CODES = jax.random.randint(jax.random.key(1), (3, 4), 0, 7)
ALIGNMENT = jnp.array([0, 2, -1])


def test_a_cache_changes_no_logit(code_prior):
    network, params, condition = code_prior
    at_once = network.apply(params, CODES, condition, ALIGNMENT)
    logits, cache = network.apply(params, condition, ALIGNMENT, method="start")
    one_by_one = [logits]
    for i in range(3):
        logits, cache = network.apply(
            params, cache, CODES[:, i], jnp.asarray(i), method="following"
        )
        one_by_one.append(logits)
    assert at_once.shape == (3, 4, 7) and np.std(at_once) > 0.3
    np.testing.assert_allclose(jnp.stack(one_by_one, 1), at_once, atol=2e-5)


def test_a_code_knows_those_before_it_alone(code_prior):
    network, params, condition = code_prior
    before = network.apply(params, CODES, condition, ALIGNMENT)
    for i in range(4):
        other = CODES.at[:, i].set((CODES[:, i] + 1) % 7)
        after = network.apply(params, other, condition, ALIGNMENT)
        np.testing.assert_array_equal(after[:, : i + 1], before[:, : i + 1])
        assert i == 3 or np.all(np.abs(after - before)[:, i + 1 :].max(-1) > 1e-4)


def test_codes_know_text_embedding_and_alignment(code_prior):
    network, params, condition = code_prior
    before = network.apply(params, CODES, condition, ALIGNMENT)
    others = [
        (condition._replace(tokens=condition.tokens.at[:, 1].add(-1)), ALIGNMENT),
        (condition._replace(vector=-condition.vector), ALIGNMENT),
        (condition, (ALIGNMENT + 2) % 4 - 1),
    ]
    for told, alignment in others:
        after = network.apply(params, CODES, told, alignment)
        assert np.all(np.abs(after - before).max((1, 2)) > 1e-4)


@pytest.fixture(scope="module")
def diffusion_prior():
    network = DiffusionPrior(**SIZES)
    condition = PROMPT.condition(known())
    params = network.init(jax.random.key(0), jnp.zeros((3, 6)), jnp.zeros(3), condition)
    return network, shaken(params), condition


def test_the_diffusion_prior_knows_all_it_is_told(diffusion_prior):
    network, params, condition = diffusion_prior
    x, t = jax.random.normal(jax.random.key(2), (3, 6)), jnp.array([10.0, 400.0, 900.0])
    before = network.apply(params, x, t, condition)
    assert before.shape == (3, 6) and before.dtype == jnp.float32
    others = [
        (x + 0.5, t, condition),
        (x, t + 50, condition),
        (x, t, condition._replace(tokens=condition.tokens.at[:, 1].add(-1))),
        (x, t, condition._replace(vector=-condition.vector)),
    ]
    for arguments in others:
        after = network.apply(params, *arguments)
        assert np.all(np.abs(after - before).max(1) > 1e-4)


def test_a_token_that_is_not_there_is_not_read(diffusion_prior):
    network, params, condition = diffusion_prior
    x, t = jnp.ones((3, 6)), jnp.ones(3)
    there = condition._replace(mask=condition.mask.at[:, 4].set(False))
    other = there._replace(tokens=there.tokens.at[:, 4].set(9))
    np.testing.assert_array_equal(
        network.apply(params, x, t, there), network.apply(params, x, t, other)
    )


def test_null_knows_no_text():
    one, other = PROMPT.null(known(seed=0)), PROMPT.null(known(seed=1))
    assert jax.tree.all(jax.tree.map(lambda a, b: (a == b).all(), one, other))
    assert not one.mask.any() and not one.vector.any()


def test_training_takes_one_of_several_texts():
    """Tokens and embedding of the same one, and each about as often."""
    rows = jnp.arange(4)
    tokens = jnp.broadcast_to(rows[None, :, None] + 1, (500, 4, 5))
    z = jnp.broadcast_to(jax.nn.one_hot(rows, 6)[None], (500, 4, 6))
    batch = {"tokens": tokens, "text_embedding": z}
    told = PROMPT.known(jax.random.key(0), jnp.arange(500), batch)
    assert told["tokens"].shape == (500, 5) and told["text_embedding"].shape == (500, 6)
    chosen = told["tokens"][:, 0] - 1
    np.testing.assert_array_equal(chosen, told["text_embedding"].argmax(1))
    np.testing.assert_allclose(np.bincount(chosen, minlength=4), 125, atol=45)
    few = one_of(jax.random.key(0), jnp.array([7, 300]), {"tokens": tokens[:2]})
    np.testing.assert_array_equal(few["tokens"], told["tokens"][jnp.array([7, 300])])


def test_conditions_of_other_sizes_are_refused(diffusion_prior):
    network, params, condition = diffusion_prior
    x, t = jnp.ones((3, 6)), jnp.ones(3)
    wrong = [
        (x[:, :5], condition, r"reads \[b 6\]"),
        (x, condition._replace(vector=condition.vector[:, :4]), "the condition has 5 and 4"),
        (x, Condition(), "tokens, mask and vector"),
    ]
    for given, told, said in wrong:
        with pytest.raises(ValueError, match=said):
            network.apply(params, given, t, told)
    with pytest.raises(ValueError, match="token 20 is out of range"):
        PROMPT.check({**known(), "tokens": jnp.full((3, 5), 20)})
    with pytest.raises(ValueError, match="length 1"):
        PROMPT.check({**known(), "text_embedding": jnp.ones((3, 6))})
