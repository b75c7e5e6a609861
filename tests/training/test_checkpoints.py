"""Whatever happens to process or disk, the newest whole checkpoint comes back, bit for bit."""

import dataclasses
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.training import checkpoints, files

ROOT = Path(__file__).resolve().parents[2]


class Moments(NamedTuple):
    count: Any
    mean: Any
    nothing: Any = None


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Loop:
    seen: Any
    empty: tuple[()] = ()


def make_state(seed: int = 0) -> dict[str, Any]:
    """Every kind of leaf and container that training meets; the values depend on the seed."""
    key = jax.random.key(seed)
    odd = np.array([0x7FC00001, 0xFF800123, 0x80000000, 0x7F800001], np.uint32).view(np.float32)
    return {
        "params": {"dense": {"w": jax.random.normal(key, (33, 65)), "b": jnp.zeros((0, 3))}},
        "ema": {"dense": {"w": jax.random.normal(key, (33, 65), jnp.bfloat16)}},
        "moments": [Moments(jnp.int32(seed), jnp.asarray(odd)), (), Moments(jnp.uint32(7), None)],
        "loop": Loop(np.arange(5) + 2**40 + seed),
        "scale": jnp.bfloat16(seed + 0.5),
        "flag": jnp.array(True),
    }


def shapes(tree: Any) -> Any:
    return jax.tree.map(
        lambda x: (
            x
            if isinstance(x, np.ndarray)
            else jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding)
        ),
        tree,
    )


def assert_identical(a: Any, b: Any) -> None:
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert type(x) is type(y)
        assert (x.shape, x.dtype) == (y.shape, y.dtype)
        assert np.asarray(x).tobytes() == np.asarray(y).tobytes()


def refuse(sentence: str) -> None:
    raise AssertionError(sentence)


def run(script: str, *arguments: object, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(script), *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_round_trip_is_bit_identical(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    state = make_state()
    metadata = {"seed": 3, "position": [1, 2], "name": "ü", "nested": {"x": 0.1}}
    path = checkpoints.save(tmp_path / "new" / "run", 5, state, metadata)
    restored = checkpoints.restore_latest(tmp_path / "new" / "run", shapes(state), warn=refuse)
    assert path == tmp_path / "new" / "run" / "5"
    assert (restored.step, restored.metadata) == (5, metadata)
    assert_identical(restored.state, state)
    assert capfd.readouterr() == ("", "")


def test_empty_folder_has_no_checkpoint(tmp_path: Path) -> None:
    assert checkpoints.steps(tmp_path / "none") == []
    assert checkpoints.restore_latest(tmp_path / "none", make_state(), warn=refuse) is None


def test_leaves_get_the_sharding_that_is_asked_for(tmp_path: Path) -> None:
    mesh = jax.make_mesh((1,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    state = {"w": jnp.ones((4, 2)), "empty": jnp.ones((0, 2))}
    checkpoints.save(tmp_path, 1, state, {})
    like = {k: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding) for k, x in state.items()}
    restored = checkpoints.restore_latest(tmp_path, like, warn=refuse)
    assert all(x.sharding == sharding for x in restored.state.values())
    assert_identical(restored.state, state)
    plain = {k: jax.ShapeDtypeStruct(x.shape, x.dtype) for k, x in state.items()}
    assert_identical(checkpoints.restore_latest(tmp_path, plain, warn=refuse).state, state)


@pytest.mark.slow
def test_another_number_of_devices(tmp_path: Path) -> None:
    script = """
        import sys, pathlib, jax, numpy as np
        from jax.sharding import NamedSharding, PartitionSpec as P, AxisType
        from diffusion_jax.training import checkpoints
        x = np.arange(64, dtype=np.float32).reshape(8, 8)
        def place(n, spec):
            mesh = jax.make_mesh((n,), ("d",), (AxisType.Auto,), devices=jax.devices()[:n])
            return jax.device_put(x, NamedSharding(mesh, spec))
        folder = pathlib.Path(sys.argv[1])
        checkpoints.save(folder, 1, {"x": place(8, P("d")), "y": place(8, P())}, {})
        for n, spec in [(1, P()), (2, P("d")), (4, P(None, "d")), (8, P())]:
            like = {"x": place(n, spec), "y": place(n, spec)}
            got = checkpoints.restore_latest(folder, like).state
            for k in like:
                assert got[k].sharding == like[k].sharding and (np.asarray(got[k]) == x).all()
    """
    out, error = run(script, tmp_path, JAX_NUM_CPU_DEVICES="8").communicate(timeout=120)
    assert (out, error) == ("", "")


def test_keeps_the_newest(tmp_path: Path) -> None:
    for step in range(1, 6):
        checkpoints.save(tmp_path, step, {"x": jnp.int32(step)}, {}, keep=3)
    assert checkpoints.steps(tmp_path) == [3, 4, 5]
    checkpoints.save(tmp_path, 6, {"x": jnp.int32(6)}, {}, keep=1)
    assert os.listdir(tmp_path) == ["6"]


def test_a_rewound_run_keeps_what_it_has_just_saved(tmp_path: Path) -> None:
    for step in (10, 20, 15):
        checkpoints.save(tmp_path, step, {"x": jnp.int32(step)}, {}, keep=1)
    assert checkpoints.steps(tmp_path) == [15, 20]


def test_the_same_step_again_is_replaced(tmp_path: Path) -> None:
    checkpoints.save(tmp_path, 1, {"x": jnp.int32(1)}, {})
    checkpoints.save(tmp_path, 1, {"x": jnp.int32(2)}, {})
    assert os.listdir(tmp_path) == ["1"]
    assert checkpoints.restore_latest(tmp_path, {"x": jnp.int32(0)}).state["x"] == 2


def test_one_step_by_name(tmp_path: Path) -> None:
    for step in (1, 2):
        checkpoints.save(tmp_path, step, {"x": jnp.int32(step)}, {})
    assert checkpoints.restore_latest(tmp_path, {"x": jnp.int32(0)}, step=1).state["x"] == 1
    with pytest.raises(FileNotFoundError, match=r"step 7 .*available: 1, 2"):
        checkpoints.restore_latest(tmp_path, {"x": jnp.int32(0)}, step=7)


@pytest.mark.parametrize(
    ("like", "message"),
    [
        ({"a": jnp.ones(3), "b": jnp.ones(()), "c": jnp.ones(2)}, "c is missing$"),
        ({"a": jnp.ones(3)}, "b is unexpected$"),
        ({"a": jnp.ones(4), "b": jnp.ones(())}, r"a is float32\[3\] where float32\[4\] is wanted$"),
        (
            {"a": jnp.ones(3), "b": jnp.ones((), jnp.bfloat16)},
            r"b is float32\[\] where bfloat16\[\] is wanted$",
        ),
        ({"a": {str(i): jnp.ones(1) for i in range(20)}}, r"a/0 is missing, .*, and 14 more$"),
    ],
)
def test_another_architecture_is_refused(tmp_path: Path, like: Any, message: str) -> None:
    for step in (1, 2):
        checkpoints.save(tmp_path, step, {"a": jnp.ones(3), "b": jnp.ones(())}, {})
    with pytest.raises(checkpoints.CheckpointMismatch, match=message):
        checkpoints.restore_latest(tmp_path, like, warn=refuse)


def test_a_part(tmp_path: Path) -> None:
    state = make_state()
    checkpoints.save(tmp_path, 1, state, {"seed": 1})
    restored = checkpoints.restore_part(tmp_path, shapes(state["ema"]), "ema", warn=refuse)
    assert_identical(restored.state, state["ema"])
    assert restored.metadata == {"seed": 1}
    leaf = checkpoints.restore_part(tmp_path, state["scale"], "scale", warn=refuse)
    assert_identical(leaf.state, state["scale"])
    with pytest.raises(checkpoints.CheckpointMismatch, match=r"em/dense/w is missing$"):
        checkpoints.restore_part(tmp_path, state["ema"], "em")
    with pytest.raises(checkpoints.CheckpointMismatch, match=r"params/dense/b is unexpected$"):
        checkpoints.restore_part(
            tmp_path, {"dense": {"w": state["params"]["dense"]["w"]}}, "params"
        )


@pytest.mark.parametrize(
    ("state", "metadata", "error", "message"),
    [
        ({"a/b": jnp.ones(1), "a": {"b": jnp.ones(1)}}, {}, ValueError, "two leaves .* 'a/b'"),
        ({"a/b": jnp.ones(1), "a": jnp.ones(1)}, {}, ValueError, "'a' is a leaf, and"),
        ({"key": jax.random.key(0)}, {}, TypeError, "key has dtype key<fry>"),
        ({"rate": 0.1}, {}, TypeError, "rate is 0.1: a checkpoint holds arrays only"),
        ({"x": jnp.ones(1)}, {"model": object()}, TypeError, "must be JSON"),
    ],
)
def test_what_can_not_be_saved(
    tmp_path: Path, state: Any, metadata: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        checkpoints.save(tmp_path, 1, state, metadata)
    assert os.listdir(tmp_path) == []


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    for i in {len(data) // 3, len(data) // 2} if data else {}:
        data[i] ^= 0x41
    path.write_bytes(data)


DAMAGES: dict[str, Callable[[Path], None]] = {
    "deleted": lambda path: path.unlink(),
    "emptied": lambda path: os.truncate(path, 0),
    "halved": lambda path: os.truncate(path, path.stat().st_size // 2),
    "flipped": flip,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_never_silent(
    tmp_path: Path, damage: str, capfd: pytest.CaptureFixture[str]
) -> None:
    states = {step: make_state(step) for step in (1, 2)}
    for step, state in states.items():
        checkpoints.save(tmp_path / "good", step, state, {"step": step})
    newest = tmp_path / "good" / "2"
    names = [path.relative_to(newest) for path in newest.rglob("*") if path.is_file()]
    assert len(names) > 5
    skipped = set()
    for name in names:
        shutil.copytree(tmp_path / "good", tmp_path / "bad")
        DAMAGES[damage](tmp_path / "bad" / "2" / name)
        sentences: list[str] = []
        restored = checkpoints.restore_latest(
            tmp_path / "bad", shapes(states[1]), warn=sentences.append
        )
        assert_identical(restored.state, states[restored.step])
        assert restored.metadata == {"step": restored.step}
        if restored.step == 1:
            skipped.add(name)
            (sentence,) = sentences
            assert "checkpoint 2 in" in sentence
            assert "going back to 1" in sentence
        else:
            assert sentences == []
        shutil.rmtree(tmp_path / "bad")
    assert Path("checkpoint.json") in skipped
    assert max(names, key=lambda name: (newest / name).stat().st_size) in skipped
    assert capfd.readouterr() == ("", "")


def test_zeros_in_place_of_data_are_noticed(tmp_path: Path) -> None:
    for step in (1, 2):
        checkpoints.save(tmp_path, step, {"a": jnp.ones(3), "b": jnp.ones(2)}, {})
    shutil.rmtree(tmp_path / "2" / "state")
    files.write_arrays(tmp_path / "2" / "state", {"a": jnp.ones(3), "b": jnp.zeros(2)})()
    document = tmp_path / "2" / "checkpoint.json"
    body = files.unseal(document.read_text())
    document.unlink()
    document.write_text(files.seal(body | {"files": files.inventory(tmp_path / "2")}))
    sentences: list[str] = []
    like = {"a": jnp.ones(3), "b": jnp.ones(2)}
    assert checkpoints.restore_latest(tmp_path, like, warn=sentences.append).step == 1
    assert "other bytes than were saved in b" in sentences[0]
    assert checkpoints.restore_part(tmp_path, jnp.ones(3), "a", warn=refuse).step == 2


def test_altered_metadata_is_noticed(tmp_path: Path) -> None:
    for step in (1, 2):
        checkpoints.save(tmp_path, step, {"a": jnp.ones(3)}, {"position": 123})
    document = tmp_path / "2" / "checkpoint.json"
    document.write_text(document.read_text().replace("123", "124"))
    sentences: list[str] = []
    restored = checkpoints.restore_latest(tmp_path, {"a": jnp.ones(3)}, warn=sentences.append)
    assert restored.metadata == {"position": 123}
    assert "checkpoint.json: was altered" in sentences[0]


def test_all_damaged(tmp_path: Path) -> None:
    for step in (1, 2):
        checkpoints.save(tmp_path, step, {"a": jnp.ones(3)}, {})
        (tmp_path / str(step) / "checkpoint.json").unlink()
    with pytest.raises(checkpoints.CheckpointCorrupted, match=r"checkpoint 2 .* checkpoint 1 "):
        checkpoints.restore_latest(tmp_path, {"a": jnp.ones(3)}, warn=refuse)


@pytest.mark.parametrize("again", [False, True])
def test_every_moment_of_a_save_leaves_the_newest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, again: bool
) -> None:
    """Copies the folder before each change that a save makes: what a kill there would leave."""
    folder, moments = tmp_path / "run", tmp_path / "moments"
    for step in (1, 2):
        checkpoints.save(folder, step, {"x": jnp.int32(step)}, {})
    last = 2 if again else 3
    with monkeypatch.context() as patch:
        for module, name in [(os, "rename"), (os, "fsync"), (os, "unlink"), (os, "rmdir")]:

            def spied(*arguments: Any, real: Any = getattr(module, name), **named: Any) -> Any:
                shutil.copytree(folder, moments / str(len(list(moments.glob("*")))))
                return real(*arguments, **named)

            patch.setattr(module, name, spied)
        moments.mkdir()
        checkpoints.save(folder, last, {"x": jnp.int32(33)}, {}, keep=1)
    assert checkpoints.steps(folder) == [last]
    copies = sorted(moments.iterdir(), key=lambda path: int(path.name))
    assert len(copies) > 10
    found = []
    for copy in copies:
        restored = checkpoints.restore_latest(copy, {"x": jnp.int32(0)}, warn=refuse)
        found.append(int(restored.state["x"]))
        assert restored.step == (2 if found[-1] == 2 else last)
        for step in checkpoints.steps(copy):
            checkpoints.restore_latest(copy, {"x": jnp.int32(0)}, step=step)
    assert found == sorted(found)
    assert set(found) == {2, 33}
    for copy in copies[:: len(copies) // 6]:
        checkpoints.save(copy, last, {"x": jnp.int32(44)}, {}, keep=1)
        assert os.listdir(copy) == [str(last)]


@pytest.mark.slow
def test_sigkill(tmp_path: Path) -> None:
    script = """
        import sys, pathlib, jax.numpy as jnp
        from diffusion_jax.training import checkpoints
        folder = pathlib.Path(sys.argv[1])
        like = {"x": jnp.zeros(20_000), "y": jnp.zeros((), jnp.int32)}
        before = checkpoints.restore_latest(folder, like)
        step = before.step if before else 0
        print("ready", flush=True)
        while True:
            step += 1
            for _ in range(2):
                state = {"x": jnp.full(20_000, step, jnp.float32), "y": jnp.int32(step)}
                checkpoints.save(folder, step, state, {"step": step})
            print(step, flush=True)
    """
    like = {"x": jnp.zeros(20_000), "y": jnp.zeros((), jnp.int32)}
    random = np.random.default_rng(0)
    for _ in range(5):
        process = run(script, tmp_path)
        assert process.stdout.readline() == "ready\n"
        done = int(process.stdout.readline())
        time.sleep(random.uniform(0, 0.3))
        process.send_signal(signal.SIGKILL)
        out, error = process.communicate()
        assert error == ""
        done = max([done, *map(int, out.split())])
        restored = checkpoints.restore_latest(tmp_path, like, warn=refuse)
        assert restored.step in (done, done + 1)
        assert restored.metadata == {"step": restored.step}
        assert (np.asarray(restored.state["x"]) == restored.step).all()
        assert restored.state["y"] == restored.step


def test_a_full_disk(tmp_path: Path) -> None:
    script = """
        import pathlib, resource, sys, jax.numpy as jnp, numpy as np
        from diffusion_jax.training import checkpoints
        folder = pathlib.Path(sys.argv[1])
        state = {"x": jnp.asarray(np.random.default_rng(0).standard_normal(200_000, np.float32))}
        checkpoints.save(folder, 1, state, {})
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
        try:
            checkpoints.save(folder, 2, state, {})
        except OSError as error:
            print(error)
        print(*sorted(path.name for path in folder.iterdir()))
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        checkpoints.save(folder, 2, state, {})
        print(checkpoints.restore_latest(folder, state).step)
    """
    out, error = run(script, tmp_path).communicate(timeout=120)
    assert out.splitlines() == [
        f"[Errno 27] the checkpoint of step 2 can't be written to {tmp_path}: File too large; "
        "the one of step 1 is intact",
        "1",
        "2",
    ]
    assert error == ""


def test_a_folder_that_can_not_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=r"step 3 can't be written to .*file/run: Not a directory"):
        checkpoints.save(tmp_path / "file" / "run", 3, {"x": jnp.ones(1)}, {})


def test_an_error_while_writing_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    checkpoints.save(tmp_path, 1, {"x": jnp.ones(1)}, {})
    monkeypatch.setattr(files, "commit", interrupt)
    with pytest.raises(KeyboardInterrupt):
        checkpoints.save(tmp_path, 2, {"x": jnp.ones(1)}, {})
    assert os.listdir(tmp_path) == ["1"]
