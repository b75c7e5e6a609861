"""What a loss carries from step to step survives steps, checkpoints and a resume."""

import dataclasses

import jax
import numpy as np

import diffusion_jax as dj
from diffusion_jax.training import checkpoints
from diffusion_jax.training.loop import Options, train
from tests.training import toy

TABLE = 4


def importance(experiment):
    terms = dj.denoising_terms(
        experiment.model.apply,
        experiment.process,
        experiment.parameterization,
        weighting=dj.constant,  # L_simple is 0 at alpha = 0
        condition=experiment.conditioning,
    )
    return dj.importance_sampled(terms, TABLE)


def go(run_dir, steps):
    run_dir.mkdir(exist_ok=True)
    experiment = dataclasses.replace(
        toy.recipe(steps=steps, accumulate=2),
        make_loss=importance,
        init_extra=lambda: dj.init_history(TABLE, length=2),
    )
    options = Options(log_every=2, checkpoint_every=2, sample_every=0)
    return train(experiment, options, run_dir, show=False)


def test_loss_history_survives_steps_checkpoints_and_a_resume(tmp_path):
    whole = go(tmp_path / "whole", 5)
    for steps in (2, 5):
        pieces = go(tmp_path / "pieces", steps)
    assert toy.equal(whole, pieces)
    history = whole.extra
    assert int(history.seen.sum()) == 5 * 8 and np.all(history.seen >= 2)
    assert np.all(history.losses > 0)
    restored = checkpoints.restore_part(
        tmp_path / "whole" / "checkpoints", jax.eval_shape(lambda: history), "extra"
    )
    assert toy.equal(restored.state, history)
