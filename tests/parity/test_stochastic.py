"""Our stochastic samplers and diffusers' schedulers end in the same sample, from the same noise.

Both walk whole grids with one smooth stand-in for a network; the peer's noise comes from
seeded generators, and is handed to ours. Its tables are accumulated again in float64 where it
computes in float64.

Quirks of the peer that we don't copy:
- EDM's Euler asks the network about x before it adds the churn's noise. It is given the
  prediction at the noised x instead, as Karras et al. have it.
- Inversion tells the network the time that a step moves to, ours the time it comes from. Our
  network is told the peer's.
"""

import functools
import os
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
torch = pytest.importorskip("torch", reason="needs the extra `parity`: torch")
diffusers = pytest.importorskip("diffusers", reason="needs the extra `parity`: diffusers")

import diffusion_jax as dj  # noqa: E402

T = 1000
TOLERANCE = 1e-4  # of the largest value in the sample
SHAPE = (2, 3, 4, 4)  # channels first, as diffusers splits what a network says of the variance
TABLES = {
    "linear": (dj.LinearBeta(), {}),
    "scaled_linear": (dj.ScaledLinearBeta(), {"beta_start": 0.00085, "beta_end": 0.012}),
    "squaredcos_cap_v2": (dj.CosineBeta(), {}),
}
PREDICTIONS = {"epsilon": dj.Noise(), "v_prediction": dj.V()}
VARIANCES = {
    "fixed_small": dj.fixed_small,
    "fixed_large": dj.fixed_large,
    "learned_range": dj.learned_range,
}
START = np.random.default_rng(0).standard_normal(SHAPE)

tables = pytest.mark.parametrize("table", TABLES)
predictions = pytest.mark.parametrize("prediction", PREDICTIONS)
lengths = pytest.mark.parametrize("n", (10, 25))


def network(library, x, k):
    """What a network says about x at index k of the table, in NumPy's, torch's or JAX's words."""
    return library.tanh(0.7 * x + k / 500 - 1)


def variance(library, x, k):
    """What it says of the variance: from -1 to 1, as it comes out of diffusers' networks."""
    return library.tanh(x - k / 500)


def seeded(i: int):
    return torch.Generator().manual_seed(i)


def drawn(i: int) -> np.ndarray:
    """The noise that a scheduler draws from `seeded(i)`."""
    return torch.randn(SHAPE, generator=seeded(i), dtype=torch.float64).numpy()


def noise_of(n: int):
    return jnp.asarray(np.stack([drawn(i) for i in range(n)])[:, None])


def in_double(scheduler, n: int):
    """The scheduler with abar in float64, from its own betas, ready for n steps."""
    scheduler.alphas_cumprod = torch.cumprod(1 - scheduler.betas.double(), 0)
    scheduler.set_timesteps(n)
    return scheduler


def error(ours, theirs) -> float:
    return float(np.abs(np.asarray(ours) - theirs.numpy()).max() / np.abs(theirs.numpy()).max())


@functools.partial(jax.jit, static_argnames=("table", "prediction"))
def of_table(sampler, x, times, noise, ahead, *, table, prediction):
    """Our sample; the network is told the index of t, or one `ahead` of it."""
    process = dj.Gaussian(TABLES[table][0])

    def index(t):
        return (t * T - 1 + ahead)[:, None, None, None]

    denoise = dj.denoiser_from(
        lambda x, t: network(jnp, x, index(t)), process, PREDICTIONS[prediction]
    )

    def denoiser(x, t):
        return denoise(x, t)._replace(variance=(variance(jnp, x, index(t)) + 1) / 2)

    return dj.sample(jax.random.key(0), sampler, process, denoiser, x, times, noise=noise)


def ours(sampler, table, prediction, k, x=START, ahead=0.0):
    """Along the indices k; -1 is clean data."""
    times = jnp.asarray((np.asarray(k) + 1) / T)
    args = jnp.asarray(x), times, noise_of(len(k) - 1), jnp.asarray(ahead)
    return of_table(sampler, *args, table=table, prediction=prediction)


def settings(table, prediction):
    return {"beta_schedule": table, "prediction_type": prediction, **TABLES[table][1]}


@tables
@predictions
@lengths
def test_ddpm(x64, table, prediction, n):
    for kind, ours_kind in VARIANCES.items():
        scheduler = in_double(
            diffusers.DDPMScheduler(
                variance_type=kind, clip_sample=False, **settings(table, prediction)
            ),
            n,
        )
        x = torch.from_numpy(START)
        for i, k in enumerate(scheduler.timesteps):
            y = network(torch, x, int(k))
            if kind == "learned_range":
                y = torch.cat([y, variance(torch, x, int(k))], 1)
            x = scheduler.step(y, int(k), x, generator=seeded(i)).prev_sample
        k = np.append(scheduler.timesteps.numpy(), -1)
        found = error(ours(dj.Ancestral(ours_kind), table, prediction, k), x)
        assert found < TOLERANCE, (kind, found)


@tables
@predictions
@lengths
def test_euler_ancestral(x64, table, prediction, n):
    """Theirs walks x / alpha, in float32; ours is DDPM's posterior, and DDIM with eta = 1."""
    scheduler = diffusers.EulerAncestralDiscreteScheduler(
        timestep_spacing="leading", **settings(table, prediction)
    )
    scheduler.set_timesteps(n)
    y = torch.from_numpy(START) * (scheduler.sigmas[0] ** 2 + 1) ** 0.5
    for i, k in enumerate(scheduler.timesteps):
        answer = network(torch, scheduler.scale_model_input(y, k), float(k))
        y = scheduler.step(answer, k, y, generator=seeded(i)).prev_sample
    k = np.append(scheduler.timesteps.numpy(), -1)
    for sampler in (dj.Ancestral(dj.fixed_small), dj.DDIM(1.0)):
        found = error(ours(sampler, table, prediction, k), y)
        assert found < TOLERANCE, (sampler, found)


@tables
@predictions
@lengths
def test_ddim_inverse(x64, table, prediction, n):
    """From clean data up to the table's last entry."""
    scheduler = in_double(
        diffusers.DDIMInverseScheduler(
            clip_sample=False, timestep_spacing="trailing", **settings(table, prediction)
        ),
        n,
    )
    x = torch.from_numpy(START)
    for k in scheduler.timesteps:
        x = scheduler.step(network(torch, x, int(k)), int(k), x).prev_sample
    k = np.append(-1, scheduler.timesteps.numpy())
    found = error(ours(dj.DDIM(0.0), table, prediction, k, ahead=T // n), x)
    assert found < TOLERANCE


@dataclass(frozen=True)
class Line:
    """alpha = 1 and sigma = 200 t, as the peers below write their noise levels."""

    def alpha(self, t):
        return jnp.ones_like(t)

    def sigma(self, t):
        return 200.0 * t


LINE = dj.Gaussian(Line())
SIGMA_DATA = 0.5


@pytest.mark.parametrize("sign", [1.0, -1.0], ids=PREDICTIONS)
@pytest.mark.parametrize("churn", [0.0, 8.0])
@lengths
def test_edm_euler(x64, sign, churn, n):
    """Their "v_prediction" is their "epsilon" with a minus: c_out has the other sign."""
    prediction = "epsilon" if sign > 0 else "v_prediction"
    scheduler = diffusers.EDMEulerScheduler(prediction_type=prediction)
    scheduler.set_timesteps(n)
    levels = scheduler.sigmas.double()
    options = {"s_churn": churn, "s_tmin": 0.05, "s_tmax": 50.0, "s_noise": 1.003}
    y = torch.from_numpy(START) * levels[0]
    for i, k in enumerate(scheduler.timesteps):
        scheduler.scale_model_input(y, k)
        gamma = min(churn / n, 2**0.5 - 1) if 0.05 <= levels[i] <= 50.0 else 0.0
        level = levels[i] * (1 + gamma)
        x = y + (level**2 - levels[i] ** 2) ** 0.5 * 1.003 * torch.from_numpy(drawn(i))
        answer = network(torch, scheduler.precondition_inputs(x, level), 0.0)
        x0 = scheduler.precondition_outputs(x, answer, level)
        y = scheduler.step(
            answer, k, y, **options, generator=seeded(i), pred_original_sample=x0
        ).prev_sample

    @jax.jit
    def run(sampler, x, times, noise):
        def denoiser(x, t):
            sigma = LINE.schedule.sigma(t)[:, None, None, None]
            scale = jnp.sqrt(sigma**2 + SIGMA_DATA**2)
            answer = sign * network(jnp, x / scale, 0.0)
            return LINE.complete(
                x, t, (SIGMA_DATA / scale) ** 2 * x + sigma * SIGMA_DATA / scale * answer
            )

        noise = jnp.concatenate([noise, noise], axis=1)  # the second is DDIM's, unused
        return dj.sample(jax.random.key(0), sampler, LINE, denoiser, x, times, noise=noise)

    times = jnp.asarray(levels.numpy() / 200)
    x = jnp.asarray(START * float(levels[0]))
    found = run(dj.Churn(**options, solver=dj.DDIM()), x, times, noise_of(n))
    assert error(found, y) < TOLERANCE


@lengths
def test_consistency(x64, n):
    scheduler = diffusers.CMStochasticIterativeScheduler()
    scheduler.set_timesteps(n)
    low, levels = scheduler.config.sigma_min, scheduler.sigmas.double()
    y = torch.from_numpy(START) * levels[0]
    for i, k in enumerate(scheduler.timesteps):
        answer = network(torch, scheduler.scale_model_input(y, k), float(k))
        y = scheduler.step(answer, k, y, generator=seeded(i)).prev_sample

    @jax.jit
    def run(x, times, noise):
        def consistency(x, t):
            sigma = LINE.schedule.sigma(t)[:, None, None, None]
            skip = SIGMA_DATA**2 / ((sigma - low) ** 2 + SIGMA_DATA**2)
            scale = jnp.sqrt(sigma**2 + SIGMA_DATA**2)
            answer = network(jnp, x / scale, 250 * jnp.log(sigma))
            x0 = skip * x + (sigma - low) * SIGMA_DATA / scale * answer
            return dj.Prediction(jnp.clip(x0, -1, 1), x)

        sampler = dj.Consistency(low / 200)
        return dj.sample(jax.random.key(0), sampler, LINE, consistency, x, times, noise=noise)

    x = jnp.asarray(START * float(levels[0]))
    assert error(run(x, jnp.asarray(levels.numpy() / 200), noise_of(n)), y) < TOLERANCE


def test_langevin_corrector():
    """Ten corrections at one noise level. Theirs takes the mean of norms over a batch: of one."""
    scheduler = diffusers.ScoreSdeVeScheduler(snr=0.15)
    scheduler.set_timesteps(10)
    sigma, t = 2.0, jnp.asarray([0.01])
    x = torch.from_numpy(START[:1]).float()
    noises = [torch.randn(x.shape, generator=seeded(i)) for i in range(10)]
    theirs = x
    for i in range(10):
        score = -network(torch, theirs, 0.0) / sigma
        theirs = scheduler.step_correct(score, theirs, generator=seeded(i)).prev_sample

    noises = jnp.stack([jnp.asarray(z.numpy()) for z in noises])
    found = dj.Langevin(dj.SignalToNoise(0.15), 10).correct(
        jnp.asarray(x.numpy()),
        t,
        lambda x, t: dj.Prediction(x, network(jnp, x, 0.0)),
        LINE,
        lambda j: noises[j],
    )
    assert error(found, theirs) < TOLERANCE
