"""Codecs' networks and the discriminator: straight-through gradients, sizes, kept apart."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.models.autoencoder import KLAutoencoder, VQAutoencoder, nearest_codes
from diffusion_jax.models.discriminator import PatchDiscriminator
from diffusion_jax.models.features import feature_maps
from diffusion_jax.models.vae import LEAST_LOG_STD, VAE

KEY = jax.random.key(0)
TINY = dict(out_channels=1, channels=4, multipliers=(1, 2), blocks=1, middle_attention=False)


def apply(network, params, *arguments, method=None):
    return network.apply({"params": params}, *arguments, method=method)


def test_codes_are_the_nearest():
    z = jax.random.normal(KEY, (2, 3, 3, 4))
    codebook = jax.random.normal(jax.random.key(1), (16, 4))
    gaps = np.asarray(z)[..., None, :] - np.asarray(codebook)
    np.testing.assert_array_equal(nearest_codes(z, codebook), (gaps**2).sum(-1).argmin(-1))


def test_the_gradient_goes_straight_through_to_the_encoder():
    """What is decoded are codes; the encoder gets the gradient that they'd get, and they none."""
    network = VQAutoencoder(8, 3, groups=2, **TINY)
    x = jax.random.uniform(KEY, (2, 8, 8, 1), minval=-1.0)
    params = jax.jit(network.init)(KEY, x)["params"]
    q = apply(network, params, x, method="encode")
    np.testing.assert_allclose(q.through, q.vectors, atol=1e-6)
    np.testing.assert_array_equal(q.vectors, params["codebook"][q.codes])
    toward = jax.random.normal(KEY, q.z.shape)

    def seen(params):
        return jnp.sum(toward * apply(network, params, x, method="encode").through)

    def unseen(params):
        return jnp.sum(toward * apply(network, params, x, method="encode").z)

    straight, plain = jax.grad(seen)(params), jax.grad(unseen)(params)
    assert not np.any(straight["codebook"])
    bias = straight["encoder"]["conv_out"]["bias"]
    np.testing.assert_allclose(bias, plain["encoder"]["conv_out"]["bias"], rtol=1e-5)
    np.testing.assert_allclose(bias, toward.sum((0, 1, 2)), rtol=1e-4)


def test_stable_diffusions_codec_has_the_published_size():
    network, x = KLAutoencoder(), jnp.zeros((1, 64, 64, 3))
    shapes = jax.eval_shape(network.init, KEY, x)
    assert sum(p.size for p in jax.tree.leaves(shapes)) == 83_653_863


def test_a_plain_vae_answers_levels_that_a_likelihood_can_read():
    network = VAE((8, 8, 1), latents=3, channels=(4, 8), width=16)
    x = jax.random.uniform(KEY, (2, 8, 8, 1), minval=-1.0)
    params = jax.jit(network.init)(KEY, x)["params"]
    posterior = apply(network, params, x, method="encode")
    assert posterior.mean.shape == posterior.log_variance.shape == (2, 3)
    mean, std = apply(network, params, 100 * posterior.mean, method="levels")
    assert mean.shape == std.shape == (2, 8, 8, 1)
    assert np.all(std >= np.exp(LEAST_LOG_STD) * 0.999) and np.all(std <= 1)
    with pytest.raises(ValueError, match="can't be halved 2 times"):
        VAE((6, 6, 1), channels=(4, 8)).init(KEY, jnp.zeros((1, 6, 6, 1)))


@pytest.mark.parametrize("layers", [1, 2])
def test_patches_are_judged_each_picture_by_itself(layers):
    network = PatchDiscriminator(4, layers, groups=2)
    x = jax.random.normal(KEY, (3, 24, 24, 1))
    params = network.init(KEY, x)["params"]
    logits = apply(network, params, x)
    side = 24 // 2**layers - 2
    assert logits.shape == (3, side, side)
    np.testing.assert_allclose(apply(network, params, x[1:2])[0], logits[1], atol=1e-5)
    least = 3 * 2**layers
    assert apply(network, params, x[:, :least, :least]).shape == (3, 1, 1)
    with pytest.raises(ValueError, match=f"needs {least}x{least}"):
        apply(network, params, x[:, : least - 1, : least - 1])


def test_feature_maps_are_the_modules_own_answers():
    network = PatchDiscriminator(4, 1, groups=2)
    x = jax.random.normal(KEY, (2, 8, 8, 1))
    params = network.init(KEY, x)["params"]
    first, norm = feature_maps(network, ("conv0", "norm1"))(params, x)
    assert first.shape == (2, 4, 4, 4) and norm.shape == (2, 3, 3, 8)
    kernel, bias = params["conv0"]["kernel"], params["conv0"]["bias"]
    corner = jnp.einsum("bijc,ijcd->bd", x[:, 1:5, 1:5], kernel) + bias[None]
    np.testing.assert_allclose(first[:, 1, 1], corner, atol=1e-5)
    with pytest.raises(KeyError):
        feature_maps(network, ("conv7",))(params, x)
