"""Checkpoints beside training: copies that a donated state can't touch; errors that come out."""

import errno
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.training import checkpoints, disk, files
from diffusion_jax.training.saver import Saver, copied


def state(value: float):
    return {"x": jnp.full((300, 7), value), "n": np.arange(3)}


def test_what_is_saved_is_the_state_at_the_call(tmp_path, monkeypatch):
    """While the disk is slow, the state is donated to further steps."""
    go = threading.Event()
    commit = files.commit
    monkeypatch.setattr(files, "commit", lambda *a: (go.wait(30), commit(*a))[1])
    step = jax.jit(lambda x: jax.tree.map(lambda y: y + 1, x), donate_argnums=0)
    now = step(state(0.0)["x"])
    with Saver(tmp_path) as saver:
        saver.save(1, {"x": now}, {})
        for _ in range(5):
            now = step(now)
        assert checkpoints.steps(tmp_path) == []  # nobody waited
        go.set()
    found = checkpoints.restore_latest(tmp_path, {"x": now})
    np.testing.assert_array_equal(found.state["x"], np.full((300, 7), 1.0))


def test_copies_keep_their_bits_and_share_nothing():
    before = state(2.0)
    after = copied(before)
    before["n"][0] = 9
    assert after["n"][0] == 0
    np.testing.assert_array_equal(after["x"], before["x"])
    assert after["x"].unsafe_buffer_pointer() != before["x"].unsafe_buffer_pointer()


def test_an_error_comes_out_of_the_next_call(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    saver = Saver(tmp_path)
    saver.save(1, state(1.0), {})
    saver.wait()
    monkeypatch.setattr(files, "commit", full)
    saver.save(2, state(2.0), {})
    with pytest.raises(OSError, match=r"step 2 can't be written .*; the one of step 1 is intact"):
        saver.wait()
    saver.wait()  # said once


def test_the_error_of_the_block_comes_first(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "commit", lambda *_: 1 / 0)
    with pytest.raises(KeyError), Saver(tmp_path) as saver:
        saver.save(1, state(1.0), {})
        raise KeyError


@pytest.mark.parametrize(("failures", "works"), [(2, True), (9, False)])
def test_a_flaky_disk_is_tried_again(tmp_path, monkeypatch, failures, works):
    monkeypatch.setattr(disk.time, "sleep", lambda seconds: None)
    left = [failures]
    commit = files.commit

    def flaky(*arguments):
        left[0] -= 1
        if left[0] >= 0:
            raise OSError(errno.ESTALE, "Stale file handle")
        return commit(*arguments)

    monkeypatch.setattr(files, "commit", flaky)
    if works:
        checkpoints.save(tmp_path, 1, state(1.0), {})
        assert checkpoints.restore_latest(tmp_path, state(0.0)).step == 1
    else:
        with pytest.raises(OSError, match="Stale file handle"):
            checkpoints.save(tmp_path, 1, state(1.0), {})
        assert checkpoints.steps(tmp_path) == []


def test_a_full_disk_is_not_tried_again(monkeypatch):
    tries = []

    def full():
        tries.append(1)
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        disk.patiently(full)
    assert len(tries) == 1


def test_the_best_is_kept_beside_the_newest(tmp_path):
    for step, loss in enumerate([5.0, 2.0, 3.0, 4.0, 2.5], start=1):
        checkpoints.save(tmp_path, step, state(loss), {"loss": loss}, keep=2)
    assert checkpoints.steps(tmp_path) == [2, 4, 5]
    assert checkpoints.best(tmp_path) == 2
    assert checkpoints.best(tmp_path / "nothing") is None


def test_a_damaged_one_is_not_the_best(tmp_path):
    for step, loss in ((1, 1.0), (2, 2.0)):
        checkpoints.save(tmp_path, step, state(loss), {"loss": loss})
    path = tmp_path / "1" / "checkpoint.json"
    path.write_text(path.read_text().replace('"loss": 1.0', '"loss": 0.5'))
    assert checkpoints.best(tmp_path) == 2
