"""The loop: resuming bit for bit, signals, losses that aren't numbers, what a run leaves."""

import dataclasses
import json
import os
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.models import ClassLabels
from diffusion_jax.training import checkpoints, loop
from diffusion_jax.training.experiment import denoising
from diffusion_jax.training.loop import Options, train
from diffusion_jax.training.metrics import NonFiniteLoss
from diffusion_jax.training.signals import Stopped
from tests.training import toy

OPTIONS = Options(log_every=2, checkpoint_every=2, sample_every=0)


def go(run_dir, options=OPTIONS, experiment=None, **arguments):
    run_dir.mkdir(exist_ok=True)
    return train(experiment or toy.recipe(**arguments), options, run_dir, show=False)


def test_resumed_in_pieces_is_the_run_that_never_stopped(tmp_path):
    whole = go(tmp_path / "whole", steps=6)
    for steps in (2, 3, 6):
        pieces = go(tmp_path / "pieces", steps=steps)
    assert toy.equal(whole, pieces)
    assert not toy.equal(whole, go(tmp_path / "other", steps=6, seed=1))


def test_what_a_run_leaves(tmp_path):
    options = dataclasses.replace(OPTIONS, sample_every=3)
    go(tmp_path / "run", options, steps=6)
    run = tmp_path / "run"
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [2, 4, 6]
    assert all(np.isfinite(line["loss"]) and line["examples_per_second"] > 0 for line in lines)
    assert checkpoints.steps(run / "checkpoints") == [4, 6]
    pictures = sorted(path.name for path in (run / "samples").iterdir())
    assert pictures == ["step_0000003.png", "step_0000006.png"]
    assert list((run / "tensorboard").iterdir())


def test_each_step_is_logged_once_after_a_resume(tmp_path):
    go(tmp_path / "run", steps=4)
    with open(tmp_path / "run" / "metrics.jsonl", "a") as file:  # past the checkpoint, and half
        file.write('{"step": 9, "loss": 0.0}\n{"step": 1')
    go(tmp_path / "run", steps=6)
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [2, 4, 6]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_ends(tmp_path, number, monkeypatch):
    whole = go(tmp_path / "whole", steps=6)

    original = loop.device_batches

    def killing(*args):
        for batch in original(*args):
            if batch.number == 2:
                os.kill(os.getpid(), number)
            yield batch

    monkeypatch.setattr(loop, "device_batches", killing)
    with pytest.raises(Stopped) as stopped:
        go(tmp_path / "run", steps=6)
    assert stopped.value.number == number
    assert checkpoints.steps(tmp_path / "run" / "checkpoints")[-1] == stopped.value.step == 3
    monkeypatch.setattr(loop, "device_batches", original)
    assert toy.equal(whole, go(tmp_path / "run", steps=6))
    assert signal.getsignal(number) is not None


def test_the_host_is_few_steps_ahead_of_the_devices(tmp_path, monkeypatch):
    """Else a signal would be noticed long after it came, and a heartbeat tell of the future."""
    ahead = []

    class Watched(loop.Pending):
        def keep_up(self, lead):
            super().keep_up(lead)
            ahead.append(sum(not entry.values["loss"].is_ready() for entry in self._entries))

    def slow(experiment):
        loss = denoising(experiment)

        def slowly(params, extra, key, batch):
            value, (metrics, extra) = loss(params, extra, key, batch)
            x = jax.lax.fori_loop(0, 40, lambda _, x: x @ x / 400.0, jnp.ones((400, 400)))
            return value, ({**metrics, "loss": value + 0 * x[0, 0]}, extra)

        return slowly

    monkeypatch.setattr(loop, "Pending", Watched)
    options = dataclasses.replace(OPTIONS, log_every=100, checkpoint_every=100)
    go(tmp_path / "run", options, dataclasses.replace(toy.recipe(steps=20), make_loss=slow))
    assert len(ahead) == 20 and 0 < max(ahead) <= loop.LEAD


def test_non_finite_loss_names_step_records_and_checkpoint(tmp_path):
    experiment = toy.recipe(steps=6)
    apply = experiment.model.apply

    def poisoned(params, x, t, condition, *, key=None):
        y = apply(params, x, t, condition, key=key)
        # The bias starts at 0 and leaves it in the first step: the second one's loss is NaN.
        return jnp.where(params["Conv_1"]["bias"].max() != 0, jnp.nan, y)

    broken = dataclasses.replace(experiment, model=experiment.model._replace(apply=poisoned))
    every = dataclasses.replace(OPTIONS, checkpoint_every=1)
    with pytest.raises(NonFiniteLoss) as caught:
        go(tmp_path / "run", every, experiment=broken)
    message = str(caught.value)
    last = checkpoints.steps(tmp_path / "run" / "checkpoints")[-1]
    assert last == 1 and "isn't finite at step 2 " in message
    assert f"The last good checkpoint is of step {last}" in message
    records = message.split("the records ")[1].split(".")[0].split(", ")
    assert len(records) == 8 and all(0 <= int(r) < 40 for r in records)


def test_bad_input_comes_before_any_work(tmp_path):
    for arguments, message in [
        ({"batch_size": 0}, "batch_size is 0"),
        ({"steps": -1}, "steps is -1"),
        ({"batch_size": 6, "accumulate": 4}, "multiple of 4"),
    ]:
        with pytest.raises(ValueError, match=message):
            go(tmp_path / "run", **arguments)
    for replaced, message in [
        ({"ema_decay": 1.0}, "ema_decay is 1.0; it must be at least 0 and less than 1"),
        ({"conditioning": ClassLabels(3, drop=2.0)}, "dropped with probability 2.0"),
        ({"conditioning": ClassLabels(3, drop=np.nan)}, "dropped with probability nan"),
    ]:
        with pytest.raises(ValueError, match=message):
            go(tmp_path / "run", experiment=dataclasses.replace(toy.recipe(), **replaced))
    wrong = dataclasses.replace(toy.recipe(), image_shape=(8, 8, 1))
    with pytest.raises(ValueError, match=r"toy has pictures of \(4, 4, 1\)"):
        go(tmp_path / "run", experiment=wrong)
    with pytest.raises(ValueError, match="--log-every is 0; it must be at least 1"):
        go(tmp_path / "run", dataclasses.replace(OPTIONS, log_every=0))
    assert list((tmp_path / "run").iterdir()) == []


def test_another_architecture_is_refused_and_left_alone(tmp_path):
    go(tmp_path / "run", steps=2)
    with pytest.raises(checkpoints.CheckpointMismatch, match=r"8.*16|16.*8"):
        go(tmp_path / "run", steps=4, features=16)
    assert checkpoints.steps(tmp_path / "run" / "checkpoints") == [2]


def test_damaged_checkpoint_falls_back_and_says_so(tmp_path, capsys):
    whole = go(tmp_path / "whole", steps=6)
    go(tmp_path / "run", steps=4)
    newest = tmp_path / "run" / "checkpoints" / "4"
    largest = max((p for p in newest.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    largest.write_bytes(largest.read_bytes()[: largest.stat().st_size // 2])
    run = tmp_path / "run"
    resumed = train(toy.recipe(steps=6), OPTIONS, run, show=True)
    shown = capsys.readouterr().out
    assert "warning:" in shown and "4" in shown and f"resuming {run} at step 2" in shown
    assert toy.equal(whole, resumed)


def test_parameters_to_begin_with_must_be_the_networks(tmp_path, monkeypatch):
    """Of another dtype they'd be trained in it, and the checkpoint would refuse to go on."""
    task = toy.recipe(steps=1)
    params = jax.device_get(task.init_params(jax.random.key(3)))
    half = jax.tree.map(lambda x: x.astype(np.float16), params)
    monkeypatch.setattr(type(task), "pretrained", lambda self: half)
    with pytest.raises(ValueError, match=r"begin with don't fit .* is float16\[.*float32\["):
        train(task, Options(sample_every=0), tmp_path, show=False)
    monkeypatch.setattr(type(task), "pretrained", lambda self: params)
    train(task, Options(sample_every=0), tmp_path, show=False)
