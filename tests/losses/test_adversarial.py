"""Two players: each has its own gradient, the weight balances them, and they meet on time."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.losses import adversarial as adv

KEY = jax.random.key(0)
X = jax.random.normal(KEY, (4, 6))
GAMES = {"hinge": adv.hinge(), "non-saturating": adv.non_saturating()}


def encode(params, extra, key, x):
    return adv.Latents(x @ params["in"], 0.1 * jnp.sum(params["in"] ** 2), {}, extra + 1)


def decode(params, z):
    return jnp.tanh(z) @ params["out"]


def distance(judge, x, y):
    return jnp.mean((x - y) ** 2), {"pixels": jnp.mean((x - y) ** 2)}


def score(params, pictures):
    return jnp.tanh(pictures @ params["w"])[:, 0] + params["b"]


def params():
    keys = jax.random.split(KEY, 3)
    shapes = {"in": (6, 3), "out": (3, 6), "w": (6, 1)}
    drawn = {n: jax.random.normal(k, s) for k, (n, s) in zip(keys, shapes.items(), strict=True)}
    codec = {"in": drawn["in"], "out": drawn["out"]}
    return {"codec": codec, "discriminator": {"w": drawn["w"], "b": jnp.array(0.1)}}


def adversary(game, **how):
    return adv.Adversary(score=score, game=game, last=("out",), **how)


def gradients(player, calls=0):
    loss = adv.codec_loss(encode, decode, distance, player)
    extra = adv.init_codec_extra(0)._replace(calls=jnp.array(calls))
    (_, (metrics, after)), grads = jax.value_and_grad(loss, has_aux=True)(
        params(), extra, KEY, {"image": X}
    )
    return grads, metrics, after


def drawn_by(codec):
    return decode(codec, X @ codec["in"])


def close(a, b):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6), a, b)


@pytest.mark.parametrize("name", GAMES)
def test_each_players_gradient_is_that_of_its_own_loss(name):
    """Against the two losses taken one at a time, the other player fixed."""
    game, start = GAMES[name], params()
    grads, metrics, _ = gradients(adversary(game, weight=0.7))

    def codec_alone(codec, weight):
        y = drawn_by(codec)
        own = distance(None, X, y)[0] + 0.1 * jnp.sum(codec["in"] ** 2)
        return own + weight * game.generator(score(start["discriminator"], y))

    def discriminator_alone(discriminator):
        y = drawn_by(start["codec"])
        return game.discriminator(score(discriminator, X), score(discriminator, y))

    close(grads["codec"], jax.grad(codec_alone)(start["codec"], 0.7 * metrics["lambda"]))
    close(grads["discriminator"], jax.grad(discriminator_alone)(start["discriminator"]))


def test_the_adaptive_weight_makes_both_gradients_of_the_last_layer_alike():
    start, game = params(), GAMES["hinge"]
    _, metrics, _ = gradients(adversary(game))

    def of(part):
        codec = start["codec"]
        gradient = jax.grad(lambda out: part(drawn_by({**codec, "out": out})))(codec["out"])
        return jnp.linalg.norm(gradient)

    far = of(lambda y: distance(None, X, y)[0])
    fooled = of(lambda y: game.generator(score(start["discriminator"], y)))
    np.testing.assert_allclose(metrics["lambda"] * fooled, far, rtol=0.02)  # but for delta
    _, capped, _ = gradients(adversary(game, most=1e-3))
    np.testing.assert_allclose(capped["lambda"], 1e-3)


def test_before_the_start_there_is_one_player():
    late = adversary(GAMES["hinge"], start=5)
    before, metrics, after = gradients(late, calls=4)
    alone, _, _ = gradients(None)
    close(before["codec"], alone["codec"])
    assert not any(np.any(g) for g in jax.tree.leaves(before["discriminator"]))
    assert int(after.calls) == 5 and int(after.encoder) == 1
    meets, same, _ = gradients(late, calls=5)
    assert np.any(meets["discriminator"]["w"])
    assert same["loss"] == metrics["loss"]  # distance and penalty: it doesn't jump


@pytest.mark.parametrize("name", GAMES)
def test_players_want_opposite_things_of_what_is_drawn(name):
    game = GAMES[name]
    logits = jnp.array([0.3, -0.2])
    assert np.all(jax.grad(game.generator)(logits) < 0)
    real, drawn = jax.grad(game.discriminator, argnums=(0, 1))(logits, logits)
    assert np.all(real < 0) and np.all(drawn > 0)


def test_a_hinge_is_content_beyond_its_margin():
    sure = jnp.array([1.5, 3.0])
    assert GAMES["hinge"].discriminator(sure, -sure) == 0
    assert GAMES["non-saturating"].discriminator(sure, -sure) > 0
