"""Our samplers and diffusers' schedulers take the same steps from the same x, y and noise.

diffusers keeps its tables in float32, where 1 - abar_t / abar_s loses digits at the clean end (5e-4
of the largest value, in 1,000 steps). So its tables are accumulated again in float64 here, from its
own betas, and it computes in float64. What is left is the rounding of the betas: 1 - 0.999 in
float32, the last of the cosine table, is wrong by 1e-5. One test leaves diffusers as it is.

A batch holds one example for every step of the grid, so that one call of `sampler.step` is
compared with all of them.
"""

import os
from collections.abc import Callable
from functools import partial

import jax.numpy as jnp
import numpy as np
import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
torch = pytest.importorskip("torch", reason="needs the extra `parity`: torch")
diffusers = pytest.importorskip("diffusers", reason="needs the extra `parity`: diffusers")

import diffusion_jax as dj  # noqa: E402

T = 1000
TOLERANCE = 1e-5  # of the largest value in x_s, for each step by itself
PEER_TOLERANCE = 1e-4  # the same, with diffusers' own float32 tables, in 50 steps
SHAPE = (3, 4, 4)

SCHEDULES = {
    "linear": (dj.LinearBeta(), {}),
    "scaled_linear": (dj.ScaledLinearBeta(), {"beta_start": 0.00085, "beta_end": 0.012}),
    "squaredcos_cap_v2": (dj.CosineBeta(), {}),
}
PARAMETERIZATIONS = {"epsilon": dj.Noise(), "v_prediction": dj.V(), "sample": dj.X0()}
SPACINGS = {"leading": dj.leading, "trailing": dj.trailing, "linspace": dj.linspace}
VARIANCES = {"fixed_small": dj.fixed_small, "fixed_large": dj.fixed_large}

schedules = pytest.mark.parametrize("schedule", SCHEDULES)
predictions = pytest.mark.parametrize("prediction", PARAMETERIZATIONS)
spacings = pytest.mark.parametrize("spacing", SPACINGS)


def as_it_is(scheduler):
    """diffusers untouched: it computes in the dtype of x."""
    return scheduler


def in_double(scheduler):
    """The same scheduler with abar accumulated in float64, from its own betas."""
    scheduler.alphas_cumprod = torch.cumprod(1 - scheduler.betas.double(), 0)
    if hasattr(scheduler, "final_alpha_cumprod"):
        to_one = scheduler.config.set_alpha_to_one
        one = torch.ones((), dtype=torch.float64)
        scheduler.final_alpha_cumprod = one if to_one else scheduler.alphas_cumprod[0]
    return scheduler


def draw(n: int, arrays: int, dtype, seed: int = 0) -> np.ndarray:
    """White noise for x, y, z, ...: an example for each of n steps."""
    return np.random.default_rng(seed).standard_normal((arrays, n, *SHAPE)).astype(dtype)


def walk(step: Callable, prepare: Callable, *arrays: np.ndarray) -> np.ndarray:
    """step(i, example i of each array), for every i, as one batch again."""
    if prepare is in_double:
        arrays = tuple(a.astype(np.float64) for a in arrays)
    rows = zip(*(torch.from_numpy(a).split(1) for a in arrays), strict=True)
    return np.concatenate([step(i, *row).numpy() for i, row in enumerate(rows)])


def worst(ours, theirs) -> float:
    """The largest difference in any step, relative to that step's largest value."""
    difference = np.abs(np.asarray(ours, np.float64) - theirs).max((1, 2, 3))
    return float((difference / np.abs(theirs).max((1, 2, 3))).max())


def our_step(sampler, process, prediction, x, y, z, k, k_next, change=None):
    """One step of ours on a batch that steps from index k to k_next; -1 is clean data."""
    t, s = (jnp.asarray((index + 1) / T, x.dtype) for index in (k, k_next))
    denoiser = dj.denoiser_from(lambda x, t: jnp.asarray(y), process, PARAMETERIZATIONS[prediction])
    if change is not None:
        denoiser = change(denoiser, process)
    x_s, _ = sampler.step(jnp.asarray(x), (), t, s, denoiser, process, lambda j: jnp.asarray(z))
    return x_s


def ddpm_error(
    schedule, prediction, spacing, *, n, clip, variance, dtype=np.float64, prepare=in_double
) -> float:
    table, settings = SCHEDULES[schedule]
    scheduler = diffusers.DDPMScheduler(
        beta_schedule=schedule,
        prediction_type=prediction,
        timestep_spacing=spacing,
        clip_sample=clip,
        variance_type=variance,
        **settings,
    )
    scheduler = prepare(scheduler)
    scheduler.set_timesteps(n)
    k = scheduler.timesteps.numpy()
    x, y = draw(n, 2, dtype)
    z = np.zeros_like(x)

    def step(i, x, y):
        # Its noise comes from a generator: the same seed gives the same noise to ours.
        generator = torch.Generator().manual_seed(i)
        z[i] = torch.randn(x.shape, generator=generator, dtype=x.dtype)[0].numpy()
        generator.manual_seed(i)
        return scheduler.step(y, int(k[i]), x, generator=generator).prev_sample

    theirs = walk(step, prepare, x, y)
    process = dj.Gaussian(table)
    sampler = dj.Ancestral(VARIANCES[variance])
    change = dj.clip if clip else None
    ours = our_step(sampler, process, prediction, x, y, z, k, np.append(k[1:], -1), change)
    # fixed_large: it adds noise to the clean picture too, unless its last index is 0; ours never.
    end = n - 1 if variance == "fixed_large" and k[-1] > 0 else n
    return worst(ours[:end], theirs[:end])


def ddim_error(
    schedule, prediction, spacing, *, n, clip, eta, to_one, dtype=np.float64, prepare=in_double
) -> float:
    table, settings = SCHEDULES[schedule]
    scheduler = diffusers.DDIMScheduler(
        beta_schedule=schedule,
        prediction_type=prediction,
        timestep_spacing=spacing,
        clip_sample=clip is not None,
        set_alpha_to_one=to_one,
        **settings,
    )
    scheduler = prepare(scheduler)
    scheduler.set_timesteps(n)
    k = scheduler.timesteps.numpy()
    x, y, z = draw(n, 3, dtype)

    def step(i, x, y, z):
        return scheduler.step(
            y, int(k[i]), x, eta=eta, use_clipped_model_output=clip is dj.clip, variance_noise=z
        ).prev_sample

    theirs = walk(step, prepare, x, y, z)
    # It steps by T // n whatever the spacing; below index 0 it ends in clean data or at index 0.
    k_next = np.maximum(k - T // n, -1 if to_one else 0)
    ours = our_step(dj.DDIM(eta), dj.Gaussian(table), prediction, x, y, z, k, k_next, clip)
    return worst(ours, theirs)


@schedules
@predictions
@spacings
def test_ancestral_is_ddpm(x64, schedule, prediction, spacing):
    errors = {
        (n, clip, variance): ddpm_error(
            schedule, prediction, spacing, n=n, clip=clip, variance=variance
        )
        for n in (10, 25, 250)
        for clip in (False, True)
        for variance in VARIANCES
    }
    case = max(errors, key=errors.get)
    assert errors[case] < TOLERANCE, (case, errors[case])


@schedules
@predictions
@spacings
def test_ddim_is_ddim(x64, schedule, prediction, spacing):
    errors = {
        (n, clip, eta, to_one): ddim_error(
            schedule, prediction, spacing, n=n, clip=clip, eta=eta, to_one=to_one
        )
        for n in (10, 25)
        for clip in (None, dj.clip, dj.clip_x0_only)
        for eta in (0.0, 0.5, 1.0)
        for to_one in (True, False)
    }
    case = max(errors, key=errors.get)
    assert errors[case] < TOLERANCE, (case, errors[case])


def a_few(schedule, prediction, **how) -> tuple[float, ...]:
    """The errors of four samplers on one grid each."""
    ddpm, ddim = (partial(error, schedule, prediction, **how) for error in (ddpm_error, ddim_error))
    return (
        ddpm(spacing="leading", clip=True, variance="fixed_small"),
        ddpm(spacing="trailing", clip=False, variance="fixed_large"),
        ddim(spacing="leading", clip=dj.clip, eta=0.0, to_one=True),
        ddim(spacing="trailing", clip=None, eta=1.0, to_one=True),
    )


@schedules
@predictions
def test_every_step_of_the_table(x64, schedule, prediction):
    errors = a_few(schedule, prediction, n=T)
    assert max(errors) < TOLERANCE, errors


@schedules
@predictions
def test_float32_is_as_close(schedule, prediction):
    errors = a_few(schedule, prediction, n=50, dtype=np.float32)
    assert max(errors) < TOLERANCE, errors


@schedules
@predictions
def test_diffusers_as_it_is(schedule, prediction):
    errors = a_few(schedule, prediction, n=50, dtype=np.float32, prepare=as_it_is)
    assert max(errors) < PEER_TOLERANCE, errors


@schedules
def test_corrupt_is_add_noise_and_v_is_velocity(x64, schedule):
    table, settings = SCHEDULES[schedule]
    scheduler = in_double(diffusers.DDPMScheduler(beta_schedule=schedule, **settings))
    process = dj.Gaussian(table)
    k = np.arange(T)
    x0, noise = draw(T, 2, np.float64)
    theirs = (
        scheduler.add_noise(*map(torch.from_numpy, (x0, noise, k))).numpy(),
        scheduler.get_velocity(*map(torch.from_numpy, (x0, noise, k))).numpy(),
    )
    x0, noise, t = (jnp.asarray(v) for v in (x0, noise, (k + 1) / T))
    ours = (process.corrupt(x0, noise, t), dj.target(dj.V(), process, x0, noise, t))
    errors = [worst(a, b) for a, b in zip(ours, theirs, strict=True)]
    assert max(errors) < TOLERANCE, errors


@spacings
@pytest.mark.parametrize("steps", [1000, 100, 37])
def test_grids_are_its_timesteps(spacing, steps):
    scheduler = diffusers.DDPMScheduler(num_train_timesteps=steps, timestep_spacing=spacing)
    for n in (*range(1, min(steps, 128)), steps // 2, steps):
        scheduler.set_timesteps(n)
        theirs = scheduler.timesteps.numpy()
        if len(theirs) == n + 1:  # trailing: its floats accumulate to a step more, at index -1
            assert spacing == "trailing"
            assert theirs[-1] == -1
            theirs = theirs[:-1]
        ours = np.asarray(SPACINGS[spacing](n, steps))
        assert ours.shape == (n + 1,)
        assert ours[-1] == 0
        # trailing rounds i T/n; where that is half a step, its floats may fall on either side.
        i = np.arange(n, 0, -1)
        tie = (spacing == "trailing") & ((2 * i * steps) % n == 0) & ((i * steps) % n != 0)
        same = ours[:-1] == np.float32((theirs + 1) / steps)
        assert np.all(same | tie), (n, theirs[~same & ~tie])


def test_sigma_and_alpha_are_stable_diffusions_tables():
    """Offset 1 of Stable Diffusion, whose table is the scaled linear one."""
    scheduler = diffusers.DDIMScheduler(
        beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, steps_offset=1
    )
    scheduler.set_timesteps(50)
    t = dj.leading(50, T, offset=1)[:-1]
    assert np.array_equal(t, np.float32((scheduler.timesteps.numpy() + 1) / T))
    abar = scheduler.alphas_cumprod[scheduler.timesteps].numpy()
    np.testing.assert_allclose(dj.ScaledLinearBeta().alpha(t) ** 2, abar, rtol=1e-5)
