"""FLOPs counted from shapes, on products whose count is known by hand."""

import jax
import jax.numpy as jnp

from diffusion_jax.training.flops import count_flops


def conv(x, kernel, stride=1):
    return jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def test_convolution_and_its_gradient():
    x, kernel = jnp.zeros((2, 8, 8, 3)), jnp.zeros((3, 3, 3, 5))
    forward = 2 * (2 * 8 * 8 * 5) * (3 * 3 * 3)
    assert count_flops(conv, x, kernel) == forward
    gradient = jax.grad(lambda x, k: (conv(x, k) ** 2).sum(), argnums=(0, 1))
    assert count_flops(gradient, x, kernel) == 3 * forward


def test_zeros_between_strides_do_not_count():
    x, kernel = jnp.zeros((2, 8, 8, 3)), jnp.zeros((3, 3, 3, 5))
    forward = 2 * (2 * 4 * 4 * 5) * (3 * 3 * 3)
    assert count_flops(lambda x, k: conv(x, k, 2), x, kernel) == forward
    back = jax.grad(lambda x: (conv(x, kernel, 2) ** 2).sum())
    assert count_flops(back, x) == 2 * forward


def test_loops_count_as_often_as_they_run():
    w = jnp.zeros((4, 4))

    def looped(x):
        return jax.lax.scan(lambda c, _: (c @ w, None), x, length=7)[0]

    assert count_flops(jax.jit(looped), jnp.zeros((3, 4))) == 7 * 2 * 3 * 4 * 4


def test_a_branch_counts_as_its_dearest():
    w = jnp.zeros((4, 4))

    def either(x):
        return jax.lax.cond(x[0, 0] > 0, lambda x: x @ w @ w, lambda x: x @ w, x)

    assert count_flops(either, jnp.zeros((3, 4))) == 2 * 2 * 3 * 4 * 4
