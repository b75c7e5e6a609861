"""One training step: what it changes, and that it doesn't depend on how it is cut."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from diffusion_jax.training.sharding import batched, check_divides, data_mesh, place
from diffusion_jax.training.step import ema_decay_at, init_state, make_step
from tests.training import toy


def quadratic(params, extra, key, batch):
    """Half the mean squared distance of w from the examples; its gradient is w - mean."""
    value = 0.5 * jnp.mean((params["w"] - batch["x"]) ** 2)
    return value, ({"loss": value}, {"seen": extra["seen"] + 1})


def first(optimizer):
    state = init_state({"w": jnp.zeros(())}, optimizer, {"seen": jnp.zeros((), jnp.int32)})
    return place(state, data_mesh(1))


def run(steps=3, accumulate=1, ema_decay=0.5):
    optimizer = optax.sgd(0.5)
    state = first(optimizer)
    step = make_step(quadratic, optimizer, state, ema_decay=ema_decay, accumulate=accumulate)
    batch = {"x": jnp.arange(4.0)}
    for _ in range(steps):
        state, metrics = step(state, jax.random.key(0), batch)
    return state, metrics


def test_gradient_descent_walks_to_the_mean():
    state, metrics = run(steps=20)
    assert float(state.params["w"]) == pytest.approx(1.5, abs=1e-4)
    assert int(state.step) == 20
    assert bool(metrics["finite"])
    assert float(metrics["grad_norm"]) < 1e-4


def test_micro_batches_average_to_the_same_update():
    whole, _ = run(accumulate=1)
    parts, _ = run(accumulate=2)
    np.testing.assert_allclose(whole.params["w"], parts.params["w"], rtol=1e-6)
    assert int(whole.extra["seen"]) == 3
    assert int(parts.extra["seen"]) == 6  # the loss's own state passes through each micro-batch


def test_average_warms_up_and_then_lags():
    assert float(ema_decay_at(jnp.array(0), 0.999)) == pytest.approx(0.1)
    assert float(ema_decay_at(jnp.array(10**6), 0.999)) == pytest.approx(0.999)
    state, _ = run(steps=2)
    assert 0 < float(state.ema["w"]) < float(state.params["w"])


def test_state_and_average_have_buffers_of_their_own():
    # The step donates its state; sharing one buffer twice is an error there.
    run(steps=2)


@pytest.mark.parametrize("poison", [np.nan, np.inf])
def test_non_finite_is_seen(poison):
    optimizer = optax.sgd(0.5)
    state = first(optimizer)
    step = make_step(quadratic, optimizer, state)
    _, metrics = step(state, jax.random.key(0), {"x": jnp.array([0.0, poison, 0.0, 0.0])})
    assert not bool(metrics["finite"])


def test_draws_depend_on_step_and_seed_alone():
    experiment = toy.recipe()
    optimizer = experiment.optimizer(experiment.learning_rate)
    mesh = data_mesh(1)

    def begin():
        return place(init_state(experiment.init_params(jax.random.key(0)), optimizer), mesh)

    traced, loss = [], experiment.loss()

    def noted(*arguments):
        traced.append(arguments)
        return loss(*arguments)

    step = make_step(noted, optimizer, begin())

    def after(steps, seed):
        state = begin()
        for _ in range(steps):
            state, metrics = step(state, jax.random.key(seed), batch)
        return state, float(metrics["loss"])

    batch = jax.device_put(toy.batch(), batched(mesh))
    one = after(1, 0)[1]
    first_time = len(traced)
    assert toy.equal(after(2, 0), after(2, 0))
    assert one != after(1, 1)[1]
    assert len(traced) == first_time > 0  # another step, another seed: nothing compiles


def test_batch_that_does_not_divide():
    with pytest.raises(ValueError, match=r"batch_size is 6.*2 micro-batches.*multiple of 4"):
        check_divides(6, 2, parts=2)
    check_divides(8, 2, parts=2)


def test_too_many_devices():
    with pytest.raises(ValueError, match="1000 devices were asked for"):
        data_mesh(1000)
