"""What sample.py's flags make of an experiment: guidance in an interval, and edits of pictures."""

import dataclasses
from pathlib import Path

import jax

from diffusion_jax.data.images import read_png
from diffusion_jax.editing import RePaint, repaint_grid
from diffusion_jax.guidance import Conditioned, classifier_free_fused, extrapolate, rescaled, within
from diffusion_jax.training.experiment import Experiment
from diffusion_jax.training.known_cli import in_range
from diffusion_jax.training.terminals import FromImage, FromNoise
from diffusion_jax.types import Condition, Network, Scalar


def guided_within(
    experiment: Experiment, interval: tuple[float, float] | None, phi: float | None
) -> Experiment:
    """The experiment that is guided in an interval of t alone, or rescaled, or both.

    Raises:
        ValueError: an interval or phi out of range.
    """
    low, high = interval or (0.0, 1.0)
    if not 0 <= low < high <= 1:
        raise ValueError(f"--interval is {low:g} {high:g}; it must be 0 <= LOW < HIGH <= 1.")
    if phi is not None and not 0 <= phi <= 1:
        raise ValueError(f"--rescale is {phi:g}; it must be from 0 to 1.")
    combine = extrapolate if phi is None else rescaled(phi)

    def guide(
        network: Conditioned, condition: Condition, null: Condition, scale: Scalar
    ) -> Network:
        inside = within(scale, low, high)
        return classifier_free_fused(network, condition, null, inside, combine=combine)

    return dataclasses.replace(experiment, guide=guide)


def repainted(experiment: Experiment, resamples: int) -> Experiment:
    """The experiment that inpaints by RePaint, walking each stretch of its grid `resamples` times.

    Raises:
        ValueError: it can't be walked so often.
    """
    if resamples < 1:
        raise ValueError(f"--resamples is {resamples}; it must be at least 1.")
    whole = experiment.grid

    def grid(steps: int) -> jax.Array:
        if steps < 2:
            raise ValueError(f"--resamples walks up and down a grid: --steps {steps} is too few.")
        return repaint_grid(whole(steps), jump=max(1, steps // 10), resamples=resamples)

    return dataclasses.replace(experiment, grid=grid, inpaint=RePaint)


def started_from(
    experiment: Experiment, path: Path, strength: float, data_dir: Path | None = None
) -> Experiment:
    """The experiment whose samples begin at a picture with noise of t = strength."""
    if not 0 < strength <= 1:
        raise ValueError(f"--strength is {strength}; it must be over 0 and at most 1.")
    if experiment.sample_steps:
        raise ValueError(
            f"--init-image: this recipe samples on a grid of its own, of {experiment.sample_steps} "
            "steps from t = 1."
        )
    check_starts_from_noise(experiment, "--init-image")
    picture = in_range(read_png(path, experiment.image_shape, what="--init-image"))
    whole = experiment.grid
    return dataclasses.replace(
        experiment,
        terminal=FromImage(lambda: experiment.beginning(picture, data_dir), strength),
        grid=lambda steps: strength * whole(steps),
    )


def check_starts_from_noise(experiment: Experiment, flag: str) -> None:
    """Raises ValueError for a process whose x_t isn't a picture and noise."""
    if not isinstance(experiment.terminal, FromNoise):
        raise ValueError(
            f"{flag} needs a model that starts from noise; this recipe's x_1 comes from "
            f"{experiment.terminal}."
        )
