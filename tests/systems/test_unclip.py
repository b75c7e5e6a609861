"""The chain from text to picture, with priors and decoders that are known in closed form."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import diffusion_jax as dj
from diffusion_jax.models import CodePrior, Prompt
from diffusion_jax.quantization import fit_codes
from diffusion_jax.systems import (
    CodeStage,
    Prompts,
    Stage,
    Unclip,
    ablation,
    attacked,
    best_of,
    interpolations,
    reconstructions,
    relations,
    text_difference,
)
from diffusion_jax.systems.unclip import unit

D, B = 6, 64
PROCESS = dj.Gaussian(dj.Cosine())


def near(mean, x, t, deviation=0.2):
    """The exact prediction for x0 ~ N(mean, deviation^2)."""
    alpha, sigma = PROCESS.scales(t, x)
    mean = jnp.broadcast_to(mean, x.shape)
    whitened = (x - alpha * mean) / (alpha**2 * deviation**2 + sigma**2)
    return dj.Prediction(mean + deviation**2 * alpha * whitened, sigma * whitened)


def prior_denoiser(params, known, guidance):
    return lambda x, t: near(params * D**0.5 * known["text_embedding"], x, t)


def picture_denoiser(params, known, guidance):
    """Pictures 2x1x3 whose pixels are the embedding, and a half where there is a text."""
    z = known["image_embedding"] + 0.5 * jnp.any(known["tokens"] != 0, axis=1, keepdims=True)
    z = z if guidance is None else guidance * z
    return lambda x, t: near((params * z).reshape(-1, 2, 1, 3), x, t, 0.02)


def up_denoiser(params, known, guidance):
    return lambda x, t: near(jnp.repeat(known["low"], 2, axis=1), x, t, 0.02)


def stage(denoiser, shape):
    return Stage(denoiser, jnp.asarray(1.0), PROCESS, shape, dj.DDIM(), dj.trailing(16))


UNCLIP = Unclip(stage(picture_denoiser, (2, 1, 3)), length=5, prior=stage(prior_denoiser, (D,)))
PROMPTS = Prompts(jnp.ones((B, 5), jnp.int32), unit(jax.random.normal(jax.random.key(0), (B, D))))
INDEX = jnp.arange(B)


def test_pictures_are_of_the_text():
    pictures = jax.jit(Unclip.sample)(UNCLIP, jax.random.key(1), PROMPTS, INDEX)
    assert pictures.shape == (B, 2, 1, 3)
    drawn = unit(pictures.reshape(B, D) - 0.5)
    # What was clipped, and the prior's spread, are lost.
    assert float(jnp.sum(drawn * PROMPTS.embedding, 1).mean()) > 0.9


def test_a_chain_without_a_prior_draws_no_texts():
    with pytest.raises(ValueError, match="needs a prior"):
        dataclasses.replace(UNCLIP, prior=None).sample(jax.random.key(0), PROMPTS, INDEX)


def test_upsamplers_enlarge():
    ups = (stage(up_denoiser, (4, 1, 3)), stage(up_denoiser, (8, 1, 3)))
    chain = dataclasses.replace(UNCLIP, upsamplers=ups)
    small = UNCLIP.decode(jax.random.key(1), PROMPTS.embedding, INDEX)
    large = chain.decode(jax.random.key(1), PROMPTS.embedding, INDEX)
    assert large.shape == (B, 8, 1, 3)
    np.testing.assert_allclose(large.reshape(B, 2, 4, 3).mean(2)[:, :, None], small, atol=0.2)


def test_no_text_is_no_text():
    with_text = UNCLIP.decode(jax.random.key(1), PROMPTS.embedding, INDEX, PROMPTS.tokens)
    without = UNCLIP.decode(jax.random.key(1), PROMPTS.embedding, INDEX)
    np.testing.assert_allclose(without.reshape(B, D), PROMPTS.embedding, atol=0.1)
    assert float((with_text - without).mean()) > 0.3


def test_the_closer_of_two_draws_is_kept():
    single = best_of(jax.random.key(2), UNCLIP.prior, PROMPTS, INDEX, 1)
    several = best_of(jax.random.key(2), UNCLIP.prior, PROMPTS, INDEX, 8)
    np.testing.assert_allclose(jnp.linalg.norm(several, axis=1), 1, atol=1e-5)
    alike = [jnp.sum(z * PROMPTS.embedding, 1) for z in (single, several)]
    assert float((alike[1] - alike[0]).mean()) > 0.003

    class Fixed:
        """Draws the text's embedding for one key in two, else its opposite."""

        def draw(self, key, known, index):
            return known["text_embedding"] * jnp.where(jax.random.bits(key) % 2, 3.0, -3.0)

    found = best_of(jax.random.key(0), Fixed(), PROMPTS, INDEX, 8)
    np.testing.assert_allclose(found, PROMPTS.embedding, atol=1e-6)


def test_variations_keep_what_the_embedding_says():
    z = PROMPTS.embedding[:1]
    picture = z.reshape(1, 2, 1, 3) + 0.02
    guided = dataclasses.replace(UNCLIP.decoder, guidance=3.0)  # of which variations know nothing
    chain = dataclasses.replace(UNCLIP, decoder=guided)
    same = chain.variations(jax.random.key(0), picture, z, INDEX, eta=0.0)
    varied = chain.variations(jax.random.key(0), picture, z, INDEX, eta=1.0)
    np.testing.assert_allclose(same, jnp.repeat(picture, B, 0), atol=0.02)
    assert float(same.std(0).max()) < 1e-6 and 0.002 < float(varied.std(0).mean()) < 0.04
    np.testing.assert_allclose(varied.mean(0), z.reshape(2, 1, 3), atol=0.02)


def test_interpolations_go_from_one_to_the_other():
    x1 = jax.random.normal(jax.random.key(3), (2, 2, 1, 3))
    weights = jnp.linspace(0.0, 1.0, 5)
    z, noise = interpolations(PROMPTS.embedding[:2], x1, weights)
    np.testing.assert_array_equal(z[jnp.array([0, 4])], PROMPTS.embedding[:2])
    np.testing.assert_array_equal(noise[jnp.array([0, 4])], x1)
    np.testing.assert_allclose(jnp.linalg.norm(z, axis=1), 1, atol=1e-5)
    steps = jnp.sum(z[1:] * z[:-1], 1)
    np.testing.assert_allclose(steps, steps[0], atol=1e-4)


def test_a_difference_of_texts_turns_towards_it():
    z, before, after = PROMPTS.embedding[:3][:, None]
    np.testing.assert_array_equal(text_difference(z, before, after, 0.0), z)
    alike = [
        float((text_difference(z, before, after, w) * unit(after - before)).sum())
        for w in (0.0, 0.25, 0.5, 1.0)
    ]
    assert alike == sorted(alike) and alike[-1] == pytest.approx(1, abs=1e-5)


@pytest.fixture(scope="module")
def code_stage():
    network = CodePrior(D, 20, 5, 16, 1, 2, count=3, buckets=8, alignments=4)
    prompt = Prompt(20, 5, D)
    condition = prompt.condition({"tokens": PROMPTS.tokens, "text_embedding": PROMPTS.embedding})
    codes = jnp.zeros((B, 3), int)
    params = network.init(jax.random.key(0), codes, condition, jnp.zeros(B, int))["params"]
    params = jax.tree.map(lambda x: x + 0.2 * jax.random.normal(jax.random.key(1), x.shape), params)
    z = np.random.default_rng(0).normal(size=(200, D))
    return CodeStage(network, params, prompt.condition, fit_codes(z, count=3, buckets=8))


def test_codes_are_drawn_as_the_network_says(code_stage):
    """The first code's frequencies are those of its logits, over the upper alignments."""
    b = 3000
    one = {"tokens": PROMPTS.tokens[:1], "text_embedding": PROMPTS.embedding[:1]}
    known = {name: jnp.repeat(value, b, 0) for name, value in one.items()}
    z = jax.jit(CodeStage.draw)(code_stage, jax.random.key(4), known, jnp.arange(b))
    found = np.bincount(np.asarray(code_stage.codes.encode(z))[:, 0], minlength=8) / b
    condition = code_stage.condition({k: jnp.repeat(v, 2, 0) for k, v in one.items()})
    logits, _ = code_stage.network.apply(
        {"params": code_stage.params}, condition, jnp.array([2, 3]), method="start"
    )
    np.testing.assert_allclose(found, jax.nn.softmax(logits).mean(0), atol=0.04)


def test_guided_codes_follow_the_text_more(code_stage):
    """Logits n + gamma (c - n): at gamma 0 the text isn't read."""
    known = {"tokens": PROMPTS.tokens, "text_embedding": PROMPTS.embedding}
    other = {**known, "text_embedding": -PROMPTS.embedding}
    drawn = {}
    for gamma in (0.0, 1.0, 3.0):
        guided = dataclasses.replace(code_stage, guidance=gamma)
        one, two = (guided.draw(jax.random.key(5), k, INDEX) for k in (known, other))
        drawn[gamma] = float(jnp.abs(one - two).mean())
    assert drawn[0.0] == 0.0 and drawn[1.0] < drawn[3.0]


def test_embeddings_from_their_first_components():
    z = unit(jax.random.normal(jax.random.key(3), (B, D)))
    codes = fit_codes(np.asarray(z), count=D)
    found = reconstructions(codes, z[:4], (1, 3, D))
    assert found.shape == (4, 3, D)
    np.testing.assert_allclose(found[:, 2], z[:4], atol=1e-5)
    cosine = jnp.einsum("bnd,bd->n", found, z[:4]) / 4
    assert cosine[0] < cosine[1] < cosine[2]
    with pytest.raises(ValueError, match="there are 6 components"):
        reconstructions(codes, z, (0,))


def test_each_way_of_telling_a_decoder():
    drawn = ablation(UNCLIP, jax.random.key(1), PROMPTS, INDEX)
    assert list(drawn) == ["text", "text embedding", "prior"]
    for name, mean in (("text", 0.5), ("text embedding", PROMPTS.embedding + 0.5)):
        wanted = jnp.broadcast_to(jnp.clip(mean, -1, 1), (B, D)).reshape(B, 2, 1, 3)
        np.testing.assert_allclose(drawn[name], wanted, atol=0.1)
    np.testing.assert_allclose(
        drawn["prior"], UNCLIP.sample(jax.random.key(1), PROMPTS, INDEX), atol=1e-6
    )
    with pytest.raises(ValueError, match="needs a prior"):
        ablation(dataclasses.replace(UNCLIP, prior=None), jax.random.key(1), PROMPTS, INDEX)


def test_what_a_written_picture_is_held_for():
    texts = jnp.broadcast_to(jnp.eye(D)[None, :2], (3, 2, D))
    z = unit(jnp.stack([jnp.eye(D)[0], jnp.eye(D)[1], jnp.eye(D)[0] + jnp.eye(D)[1]]))
    np.testing.assert_allclose(attacked(z, texts), [[1, 0], [0, 1], [0.5, 0.5]], atol=1e-4)
    assert relations("a red cube", "a blue ball") == {
        "asked": "a red cube above a blue ball",
        "exchanged": "a blue ball above a red cube",
        "colours": "a blue cube above a red ball",
    }
