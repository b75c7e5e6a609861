"""evaluate.py as a user meets it: what it prints, what it writes, what it refuses."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from diffusion_jax.training.cli import run_command, train_command
from diffusion_jax.training.evaluate_cli import evaluate_command

TOY = """
from tests.training.toy import recipe
"""
TINY = {
    "discrete": "--steps 12 --draws 4",
    "continuous": "--draws 4",
    "ode": "--steps 2",
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder like a checkout, with a toy recipe and a run of it."""
    folder = tmp_path_factory.mktemp("checkout")
    (folder / "configs").mkdir()
    (folder / "configs" / "toy.py").write_text(TOY)
    before = Path.cwd()
    os.chdir(folder)
    flags = ["--steps", "2", "--log-every", "2", "--checkpoint-every", "2", "--sample-every", "0"]
    train_command(["configs/toy.py", "--run-dir", "runs/toy", *flags])
    os.chdir(before)
    return folder


@pytest.fixture
def checkout(trained, monkeypatch):
    monkeypatch.chdir(trained)
    return trained


def evaluated(flags, out="report.json"):
    evaluate_command(["runs/toy", "--out", out, *flags.split()])
    return json.loads(Path(out).read_text())


@pytest.mark.parametrize("estimator", TINY)
def test_prints_and_writes_what_it_found(checkout, capsys, estimator):
    flags = f"--estimator {estimator} {TINY[estimator]} --num 6 --batch-size 4"
    report = evaluated(flags)
    said = capsys.readouterr().out
    bits, error = report["bits_per_dimension"], report["standard_error"]
    assert f"{bits:.4f} +- {error:.4f} bits per dimension: runs/toy at step 2" in said
    assert "6 of 40 test pictures, told nothing" in said
    assert all(sentence in said for sentence in report["assumes"])
    assert np.isfinite(bits) and 0 < error < np.inf
    np.testing.assert_allclose(bits, sum(report["terms"].values()), rtol=1e-6)
    assert report["trained_steps"] == 2 and report["options"]["estimator"] == estimator
    # Pictures are drawn, chosen and noised by their numbers, whatever the batches are.
    again = evaluated(flags.replace("--batch-size 4", "--batch-size 3"))
    np.testing.assert_allclose(again["bits_per_dimension"], bits, rtol=1e-4)


def test_by_default_the_report_lies_in_the_run(checkout):
    evaluate_command(
        ["runs/toy", "--estimator", "continuous", "--draws", "2", "--num", "2", "--batch-size", "2"]
    )
    report = json.loads(Path("runs/toy/likelihood_continuous.json").read_text())
    assert report["options"]["run_dir"] == "runs/toy"


def test_drawn_steps_agree_with_all_of_them(checkout):
    flags = "--num 40 --batch-size 40 --steps 10 --draws"
    whole, drawn = (evaluated(f"{flags} {draws}") for draws in (0, 40))
    assert "every step summed" in whole["assumes"][2]
    for term, value in whole["terms"].items():
        assert abs(drawn["terms"][term] - value) < 0.05 * whole["bits_per_dimension"]


def test_labels_and_the_exact_divergence_are_heard(checkout):
    flags = "--estimator ode --steps 1 --num 4 --batch-size 4 --probes 0"
    without, told = (evaluated(flags + end) for end in ("", " --conditional --solver heun"))
    assert without["bits_per_dimension"] != told["bits_per_dimension"]
    assert told["assumes"][-1] == "exact divergence" and "heun" in told["assumes"][2]


@pytest.mark.parametrize(
    "flags, message",
    [
        ("--num 41", "--num is 41; the test split has 40 pictures"),
        ("--num 1", "a standard error needs at least 2"),
        ("--probes 2", "--probes is 2; it belongs to --estimator ode."),
        ("--estimator continuous --steps 5", "--steps is 5; it belongs to --estimator discrete or"),
        ("--steps 1", "--steps is 1; the bound needs at least 2"),
        ("--estimator ode --steps 0", "--steps is 0; it is at least 1"),
        ("--estimator continuous --draws 0", "--draws is 0; an integral over time"),
        ("--batch-size 0", "--batch-size is 0"),
        ("--num 4 --step 3", "step 3"),
        ("--num 4 --out nowhere/a.json", "can't write nowhere/a.json: No such file or directory"),
        ("--num 2 --batch-size 2 --variance learned_range", "predicts its variance"),
    ],
)
def test_refuses_in_one_sentence(checkout, capsys, flags, message):
    with pytest.raises(SystemExit) as stop:
        run_command(lambda: evaluate_command(["runs/toy", *flags.split()]))
    assert stop.value.code == 1
    (said,) = capsys.readouterr().err.strip().splitlines()[-1:]
    assert said.startswith("error: ") and message in said
    assert not Path("runs/toy/likelihood_discrete.json").exists()
