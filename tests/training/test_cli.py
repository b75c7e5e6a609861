"""train.py and sample.py as a user meets them: what they say, and what is there afterwards."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from diffusion_jax.training import checkpoints
from diffusion_jax.training.cli import train_command
from diffusion_jax.training.recipes import Record, find_recipe
from diffusion_jax.training.sample_cli import sample_command
from tests.training.toy import fails

ROOT = Path(__file__).resolve().parents[2]


def snapshot(folder):
    return {p: p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_sample_writes_a_grid_and_arrays(checkout, capsys):
    sample_command(
        [
            "runs/toy",
            "--num",
            "5",
            "--steps",
            "3",
            "--label",
            "2",
            "0",
            "--batch-size",
            "4",
            "--out",
            "a.png",
            "--npz",
            "a.npz",
        ]
    )
    assert "wrote 5 pictures to a.png" in capsys.readouterr().out
    with np.load("a.npz", allow_pickle=False) as arrays:
        assert arrays["pictures"].shape == (5, 4, 4, 1)
        assert arrays["label"].tolist() == [2, 0, 2, 0, 2]
        assert np.abs(arrays["pictures"]).max() <= 1


def test_picture_does_not_depend_on_how_many_are_asked_for(checkout):
    for num, name in [(3, "few"), (7, "many")]:
        sample_command(
            f"runs/toy --num {num} --steps 3 --eta 1 --batch-size 4 --npz {name}.npz".split()
        )
    few, many = (np.load(f"{name}.npz")["pictures"] for name in ("few", "many"))
    np.testing.assert_array_equal(few, many[:3])
    assert not np.array_equal(many[0], many[3])  # the same label, another picture


@pytest.mark.parametrize(
    "flags, message",
    [
        ("--label 3", "label 3 is out of range: this model knows 0..2"),
        ("--num 0", "--num is 0; ask for at least 1"),
        ("--devices 99", "99 devices were asked for"),
        ("--step 3", "3"),
        ("--out nowhere/a.png", "can't write nowhere/a.png: No such file or directory"),
        ("--sampler ancestral --eta 0.5", "--eta is 0.5; it belongs to --sampler ddim"),
        ("--guidance nan", "--guidance is nan; it must be a finite number"),
        ("--steps 0", "--steps is 0; it must be at least 1"),
        ("--batch-size -8", "--batch-size is -8; it must be at least 1"),
        ("--clip runs/toy --clip-text=", "--clip needs a text"),
        ("--steering-recipe configs/toy.py", "neither --classifier nor --clip"),
    ],
)
def test_sample_refuses(checkout, capsys, flags, message):
    before = snapshot(checkout / "runs")
    assert message in fails(sample_command, ["runs/toy", *flags.split()], capsys)
    assert snapshot(checkout / "runs") == before
    assert not Path("nowhere").exists()


def test_what_is_no_file_is_not_replaced(checkout, capsys):
    os.mkfifo("pipe")
    for flag in ("--out", "--npz"):
        said = fails(sample_command, ["runs/toy", flag, "pipe"], capsys)
        assert "can't write pipe: it is a device" in said
    assert not Path("pipe").is_file()


def test_a_step_that_will_not_come_is_not_traced(checkout, capsys):
    run = ["configs/toy.py", "--run-dir", "runs/traced", "--steps", "2", "--trace-step", "3"]
    assert "the steps to come are 1 to 2" in fails(train_command, run, capsys)


def test_sample_of_what_is_no_run(checkout, capsys):
    assert "it has no recipe.json" in fails(sample_command, ["configs"], capsys)


def test_unknown_recipe_suggests(checkout, capsys):
    err = fails(train_command, ["configs/toi.py"], capsys)
    assert "no recipe at configs/toi.py" in err and "Did you mean configs/toy.py?" in err
    assert find_recipe("toy") == Path("configs/toy.py")


def test_misspelt_flag_suggests(checkout, capsys):
    err = fails(train_command, ["configs/toy.py", "--stepz", "3"], capsys, status=2)
    assert "--stepz" in err and "--steps" in err


def test_resuming_with_other_arguments_is_refused(checkout, capsys):
    run = ["configs/toy.py", "--run-dir", "runs/toy", "--sample-every", "0"]
    before = snapshot(checkout / "runs")
    for flags, message in [
        ("--steps 4 --learning-rate 0.5", "made with --learning-rate 0.01, not 0.5"),
        ("--steps 4 --features 16 --seed 1", "made with --seed 0, not 1 (and 1 more)"),
        ("--steps 2", "made with --steps 4, and 2 is fewer"),
    ]:
        assert message in fails(train_command, [*run, *flags.split()], capsys)
    assert snapshot(checkout / "runs") == before


def test_more_steps_go_on_unless_the_past_would_have_been_another(checkout, capsys):
    common = ["--log-every", "2", "--sample-every", "0"]
    run = ["configs/toy.py", "--run-dir", "runs/more", *common]
    train_command([*run, "--steps", "2"])
    train_command([*run, "--steps", "3"])
    assert checkpoints.steps(Path("runs/more/checkpoints"))[-1] == 3
    assert Record.load(Path("runs/more")).arguments["steps"] == 3
    falling = ["configs/toy.py", "--run-dir", "runs/falling", "--decay", *common]
    train_command([*falling, "--steps", "2"])
    err = fails(train_command, [*falling, "--steps", "4"], capsys)
    assert "learning rate would have been another one from step 1" in err


def test_missing_data_set_says_how_to_get_it(checkout, capsys, tmp_path):
    flags = ["--data-dir", str(tmp_path), "--run-dir", "runs/none"]
    err = fails(train_command, [str(ROOT / "configs/mnist.py"), *flags], capsys)
    assert "mnist" in err and "tfds build mnist" in err and str(tmp_path) in err
    assert not Path("runs/none/checkpoints").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--seed 4294967296", "seed is 4294967296; it must be from 0 to 4294967295"),
        ("--accumulate 0", "accumulate is 0; it must be at least 1"),
        ("--learning-rate -1", "the learning rate of step 0 is -1; it must be from 0 up"),
        ("--learning-rate nan", "the learning rate of step 0 is nan"),
        ("--keep 0", "--keep is 0"),
        ("--compile-for=", "'' is no TPU topology"),
        ("--coordinator localhost --processes 2 --process 0", "it must be HOST:PORT"),
        ("--coordinator a:99999 --processes 2 --process 0", "it must be HOST:PORT"),
        ("--coordinator a:1 --processes 0 --process 0", "--processes is 0; there is at least 1"),
    ],
)
def test_numbers_out_of_range_leave_no_run_folder(checkout, capsys, flags, message):
    run = ["configs/toy.py", "--run-dir", "runs/refused", *flags.split()]
    assert message in fails(train_command, run, capsys)
    assert not Path("runs/refused").exists()


@pytest.mark.parametrize("script", ["sample", "train", "evaluate"])
def test_ctrl_c_while_the_libraries_load_says_nothing(tmp_path, script):
    library = tmp_path / "diffusion_jax" / "__init__.py"
    library.parent.mkdir()
    library.write_text("print('loading', flush=True); import time; time.sleep(60)")
    shutil.copy(ROOT / f"{script}.py", tmp_path)
    process = subprocess.Popen(
        [sys.executable, tmp_path / f"{script}.py"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
    )
    assert process.stdout is not None and process.stdout.readline()
    process.send_signal(signal.SIGINT)
    assert process.communicate()[1] == b"" and process.returncode == -signal.SIGINT


def test_run_folder_that_cannot_be_written(checkout, capsys):
    Path("file").write_text("")
    err = fails(train_command, ["configs/toy.py", "--run-dir", "file/run"], capsys)
    assert "can't write to file/run" in err


def test_a_run_folder_never_executes_code(checkout, capsys, tmp_path):
    evil = tmp_path / "run"
    evil.mkdir()
    (evil / "evil.py").write_text("raise SystemExit('executed')")
    record = {"recipe": str(evil / "evil.py"), "arguments": {}}
    (evil / "recipe.json").write_text(json.dumps(record))
    assert "isn't in configs/" in fails(sample_command, [str(evil)], capsys)


def test_damaged_recipe_json(checkout, capsys, tmp_path):
    (tmp_path / "recipe.json").write_text('{"recipe": "to')
    assert "recipe.json is damaged" in fails(sample_command, [str(tmp_path)], capsys)


def test_run_of_another_architecture(checkout, capsys):
    record = json.loads(Path("runs/toy/recipe.json").read_text())
    record["arguments"]["features"] = 16
    Path("runs/wide").mkdir()
    Path("runs/wide/recipe.json").write_text(json.dumps(record))
    Path("runs/wide/checkpoints").symlink_to(Path("runs/toy/checkpoints").resolve())
    err = fails(sample_command, ["runs/wide"], capsys)
    assert "Conv_0" in err and "16" in err and "8" in err


def start(folder, *flags):
    """train.py of the toy recipe as a process of its own."""
    command = [sys.executable, str(ROOT / "train.py"), "configs/toy.py", *flags]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        command, cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


FLAGS = ["--steps", "40", "--log-every", "10", "--checkpoint-every", "5", "--sample-every", "0"]


def final(folder, run):
    return checkpoints.restore_latest(
        folder / run / "checkpoints", like(folder / run / "checkpoints"), step=40
    )


def like(folder):
    """The tree of a checkpoint, by the toy recipe."""
    import jax

    from diffusion_jax.training.step import init_state
    from tests.training import toy

    experiment = toy.recipe()
    optimizer = experiment.optimizer(experiment.learning_rate)
    return jax.eval_shape(
        lambda key: init_state(experiment.init_params(key), optimizer), jax.random.key(0)
    )


def test_killed_at_random_moments_ends_bit_for_bit_the_same(checkout):
    """SIGKILL twice, wherever it falls, then let it end; benchmarks/faults.py does more."""
    from tests.training import toy

    whole = start(checkout, "--run-dir", "runs/whole", *FLAGS)
    output, _ = whole.communicate()
    assert whole.returncode == 0, output
    rng = np.random.default_rng()
    kills = 0
    for _ in range(2):
        process = start(checkout, "--run-dir", "runs/killed", *FLAGS)
        folder = checkout / "runs/killed/checkpoints"
        reached = checkpoints.steps(folder)
        while process.poll() is None and checkpoints.steps(folder) == reached:
            time.sleep(0.005)  # until the next checkpoint appears: it's in the midst of its steps
        time.sleep(rng.uniform(0, 0.3))
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            kills += 1
        process.communicate()
    process = start(checkout, "--run-dir", "runs/killed", *FLAGS)
    output, _ = process.communicate()
    assert process.returncode == 0, output
    assert kills and "resuming runs/killed at step" in output
    a, b = final(checkout, "runs/whole"), final(checkout, "runs/killed")
    assert toy.equal(a.state, b.state)
    assert a.metadata == b.metadata


def test_ctrl_c_saves_and_says_how_to_go_on(checkout):
    process = start(checkout, "--run-dir", "runs/stopped", *FLAGS[:1], "100000", *FLAGS[2:])
    folder = checkout / "runs/stopped/checkpoints"
    while not checkpoints.steps(folder):
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "stopped by SIGINT at step" in output and "Traceback" not in output
    step = int(output.split("at step ")[-1].split(";")[0])
    assert checkpoints.steps(folder)[-1] == step


def test_full_disk_keeps_what_was_there(checkout, tmp_path):
    """Files may not grow beyond a limit, as on a disk that is full."""
    run = ["--run-dir", "runs/full", *FLAGS]
    process = start(checkout, *run[:2], "--steps", "5", *FLAGS[2:])
    process.communicate()
    before = snapshot(checkout / "runs/full/checkpoints")
    limited = (
        "import resource, signal, sys, runpy;"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN);"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1500, 1500));"
        "sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    done = subprocess.run(
        [sys.executable, "-c", limited, str(ROOT / "train.py"), "configs/toy.py", *run],
        cwd=checkout, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 1
    (said,) = done.stderr.splitlines()
    assert said.startswith("error: the checkpoint of step 10 can't be written to")
    assert said.endswith("the one of step 5 is intact")
    after = snapshot(checkout / "runs/full/checkpoints")
    assert after == before
