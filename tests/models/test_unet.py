"""The U-Net: the papers' sizes, zero at the start, every condition matters."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.models import (
    ClassLabels,
    Patched,
    Sinusoidal,
    UNet,
    adm_64,
    ddpm_cifar10,
    from_linen,
    patches_unet,
    shapes_unet,
    with_time,
)
from diffusion_jax.models.layers import ResidualBlock, average_pool, nearest
from diffusion_jax.types import Condition
from tests.oracle import normal

KEY = jax.random.key(0)
TINY = UNet(
    out_channels=2,
    channels=8,
    multipliers=(1, 2),
    blocks=1,
    attention=(2,),
    head_channels=4,
    modulate=True,
    time_features=Sinusoidal(8),
)
SMALL = TINY.clone(multipliers=(1,), attention=())
X = normal(0, 2, 4, 4, 2)
T = jnp.array([0.2, 0.7])
CONDITION = Condition(
    vector=normal(1, 2, 3),
    tokens=normal(2, 2, 5, 6),
    mask=jnp.array([[True, True, False, True, False], [True, False, False, False, False]]),
    image=normal(3, 2, 4, 4, 1),
)


def randomized(module, *inputs, seed=0):
    """Parameters of the module's shapes, none of them zero; nothing is compiled for it."""
    shapes = jax.eval_shape(module.init, KEY, *inputs)["params"]
    rng = np.random.default_rng(seed)

    def draw(shape):
        fan = max(1, int(np.prod(shape.shape[:-1])))
        return jnp.asarray(rng.normal(size=shape.shape) / np.sqrt(fan), shape.dtype)

    return jax.tree.map(draw, shapes)


@functools.cache
def conditioned():
    """The tiny network with all conditions, randomized: (x, t, condition) -> y, compiled once."""
    params = randomized(TINY, X, T, CONDITION)
    return jax.jit(functools.partial(TINY.apply, {"params": params}))


def parameters(module, x, condition):
    shapes = jax.eval_shape(module.init, KEY, jnp.zeros(x), jnp.zeros(1), condition)
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(shapes))


def test_ddpm_has_the_papers_parameters():
    """35.7 M (Ho et al. 2020, appendix B); exactly those of the authors' checkpoint."""
    assert parameters(ddpm_cifar10(), (1, 32, 32, 3), Condition()) == 35_746_307


def test_adm_has_the_papers_parameters():
    """296 M (Dhariwal & Nichol 2021, table 11), and twice the channels for the variance."""
    labels = ClassLabels(1000).condition({"label": jnp.zeros(1, jnp.int32)})
    module = adm_64()
    assert round(parameters(module, (1, 64, 64, 3), labels) / 1e6, 1) == 295.9
    assert module.out_channels == 6


def test_answers_zero_at_the_start():
    y, _ = jax.jit(SMALL.init_with_output)(KEY, X, T)
    assert y.shape == (2, 4, 4, 2)
    np.testing.assert_array_equal(y, 0.0)


@pytest.mark.parametrize("field", ["x", "t", "vector", "tokens", "mask", "image"])
def test_every_input_matters_to_its_own_example_only(field):
    inputs = {"x": X, "t": T, **CONDITION._asdict()}
    value = inputs[field]
    changed = ~value if field == "mask" else value + 1
    inputs[field] = value.at[0].set(changed[0])
    before = conditioned()(X, T, CONDITION)
    condition = Condition(**{name: inputs[name] for name in Condition._fields})
    after = conditioned()(inputs["x"], inputs["t"], condition)
    assert np.abs(after[0] - before[0]).max() > 1e-3
    np.testing.assert_array_equal(after[1], before[1])


@pytest.mark.parametrize(
    "channels, groups, survives", [(8, 2, True), (64, 32, True), (8, 8, False)]
)
def test_an_added_embedding_survives_a_norm_of_wider_groups(channels, groups, survives):
    """Added before the second norm, as in DDPM, it is removed where each channel is a group."""
    block = ResidualBlock(channels, groups=groups)
    x, embedding = jnp.zeros((1, 4, 4, channels)), jnp.ones((1, 4))
    params = randomized(block, x, embedding)
    run = jax.jit(
        lambda e: block.apply({"params": params}, jnp.cos(jnp.arange(x.size)).reshape(x.shape), e)
    )
    assert (np.abs(run(embedding) - run(-embedding)).max() > 1e-2) == survives


def test_masked_tokens_do_not_matter():
    before = conditioned()(X, T, CONDITION)
    hidden = jnp.where(CONDITION.mask[:, :, None], CONDITION.tokens, 100.0)
    after = conditioned()(X, T, CONDITION._replace(tokens=hidden))
    np.testing.assert_array_equal(after, before)
    seen = jnp.where(CONDITION.mask[:, :, None], 100.0, CONDITION.tokens)
    assert np.abs(conditioned()(X, T, CONDITION._replace(tokens=seen)) - before).max() > 1e-3


def test_the_order_of_tokens_does_not_matter():
    order = jnp.array([3, 1, 4, 0, 2])
    shuffled = CONDITION._replace(tokens=CONDITION.tokens[:, order], mask=CONDITION.mask[:, order])
    np.testing.assert_allclose(
        conditioned()(X, T, shuffled), conditioned()(X, T, CONDITION), atol=1e-5
    )


def test_adm_blocks_resize_and_condition():
    """Down and up by modulated residual blocks: each is told the time."""
    module = UNet(
        out_channels=4,
        channels=8,
        multipliers=(1, 2),
        blocks=1,
        attention=(),
        modulate=True,
        down=functools.partial(ResidualBlock, modulate=True, resize=average_pool),
        up=functools.partial(ResidualBlock, modulate=True, resize=nearest),
        time_features=Sinusoidal(8, shift=0),
    )
    params = randomized(module, X, T)
    run = jax.jit(lambda x, t: module.apply({"params": params}, x, t))
    y = run(X, T)
    assert y.shape == (2, 4, 4, 4)
    assert np.abs(run(X, T + 1) - y).max() > 1e-3
    assert "embed" in params["down0_resize"] and "embed" in params["up1_resize"]


def test_half_precision_computes_in_half_and_answers_in_float32():
    half = SMALL.clone(dtype=jnp.bfloat16)
    params = randomized(half, X, T)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}

    @jax.jit
    def run(params):
        full = SMALL.apply({"params": params}, X, T)
        captured = {"capture_intermediates": True, "mutable": ["intermediates"]}
        return full, half.apply({"params": params}, X, T, **captured)

    full, (y, state) = run(params)
    assert y.dtype == jnp.float32
    inner = state["intermediates"]
    inner.pop("__call__")
    assert {leaf.dtype for leaf in jax.tree.leaves(inner)} == {jnp.dtype("bfloat16")}
    assert 0 < np.abs(y - full).max() < 0.1 * np.abs(full).max()


@pytest.mark.parametrize(
    ("x", "condition", "message"),
    [
        ((2, 5, 4, 2), Condition(), "5x4 can't be halved 1 times; .* multiples of 2"),
        (
            (2, 4, 4, 2),
            Condition(image=jnp.zeros((2, 8, 8, 1))),
            r"condition.image has shape \(2, 8, 8, 1\) and x \(2, 4, 4, 2\)",
        ),
    ],
)
def test_pictures_that_do_not_fit_are_refused(x, condition, message):
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(TINY.init, KEY, jnp.zeros(x), T, condition)


@pytest.mark.parametrize("channels", [0, -4])
def test_a_network_has_channels(channels):
    with pytest.raises(ValueError, match=f"channels is {channels}; a network has at least 1"):
        jax.eval_shape(shapes_unet(16, channels).init, KEY, jnp.zeros((2, 16, 16, 3)), T)


def test_linen_models_drop_out_by_the_key_alone():
    class Dropped(nn.Module):
        @nn.compact
        def __call__(self, x, t, condition):
            return ResidualBlock(2, dropout=0.5)(x, t[:, None])

    module = Dropped()
    model = from_linen(module)
    params = randomized(module, X, T, Condition())
    apply = jax.jit(lambda key=None: model.apply(params, X, T, Condition(), key=key))
    still, one, two = apply(), apply(jax.random.key(1)), apply(jax.random.key(2))
    np.testing.assert_array_equal(one, apply(jax.random.key(1)))
    assert np.any(one != two) and np.any(one != still)
    expected = module.apply({"params": params}, X, T, Condition())
    np.testing.assert_allclose(still, expected, atol=1e-5)


def test_with_time_tells_another_time():
    class Clock(nn.Module):
        @nn.compact
        def __call__(self, x, t, condition):
            return x + t[:, None] * self.param("gain", nn.initializers.ones, ())

    model = with_time(from_linen(Clock()), lambda t: 1000 * t - 1)
    x = jnp.zeros((2, 1))
    params = model.init(KEY, x, T, Condition())
    np.testing.assert_allclose(model.apply(params, x, T, Condition())[:, 0], 1000 * T - 1)


def test_class_labels_are_one_hot_and_null_is_zero():
    labels = ClassLabels(4)
    vector = labels.condition({"label": jnp.array([2, 0])}).vector
    np.testing.assert_array_equal(vector, [[0, 0, 1, 0], [1, 0, 0, 0]])
    np.testing.assert_array_equal(
        labels.null({"label": jnp.array([2, 0])}).vector, np.zeros((2, 4))
    )
    assert ClassLabels(0).condition({}) == ClassLabels(0).null({}) == Condition()


def test_an_upsampler_is_a_convolution_of_any_size():
    """Its parameters, made for one size, take another; nothing in it attends."""
    network = Patched(patches_unet((), 8))

    def told(h, w):
        x = jnp.zeros((1, h, w, 3))
        return x, jnp.zeros(1), Condition(vector=jnp.zeros((1, 2)), image=x)

    params = jax.eval_shape(network.init, KEY, *told(16, 16))
    assert not any("attention" in name for name in params["params"])
    assert jax.eval_shape(network.apply, params, *told(24, 8)).shape == (1, 24, 8, 3)
