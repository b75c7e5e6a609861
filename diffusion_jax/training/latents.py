"""A source of pictures as a trained codec sees it: latents, computed once and kept with the codec.

A codec's run folder gains

    latents/scale_DIGEST.json               what makes latents of the size of 1
    latents/DIGEST/00000.npy, 00001.npy     latents of a source, `PER_FILE` records a file

whose digests are of the codec's parameters and, of latents, also of its architecture and of the
source, so that a codec that was trained further, or other data, have files of their own. They are
read from disk as they are needed.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from tqdm import tqdm

from diffusion_jax.data import Source
from diffusion_jax.data.files import write_atomically
from diffusion_jax.systems.latent import Codec
from diffusion_jax.training.codecs import CodecTask, load_codec
from diffusion_jax.training.distributed import said_by_all
from diffusion_jax.training.needs import identity
from diffusion_jax.training.picture_codecs import VQTask
from diffusion_jax.training.runs import load_params
from diffusion_jax.training.sharding import batched, make_mesh, replicated, under
from diffusion_jax.training.supervisor import heartbeat
from diffusion_jax.types import Params

Encode = Callable[[Params, jax.Array], jax.Array]

PER_FILE = 4096
OF_SCALE = 1024  # pictures whose latents say the scale


class Scale(NamedTuple):
    """z_0 = (z - shift) scale, of mean 0 and variance 1 over all entries."""

    scale: float
    shift: float


@runtime_checkable
class LatentCodec(Protocol):
    """Where a model of latents finds its codec."""

    def functions(self) -> tuple[Encode, Encode]:
        """(params, pictures) -> latents, and (params, latents) -> pictures."""
        ...

    def arrays(self, data_dir: Path | None) -> dict[str, Any]:
        """The rest of a `Codec`: {"params", "scale", "shift"}."""
        ...


def codec_with(codec: LatentCodec, arrays: Mapping[str, Any]) -> Codec:
    """The codec of these arrays."""
    encode, decode = codec.functions()
    return Codec(encode, decode, **arrays)


@dataclass(frozen=True)
class CodecRun:
    """A codec that was trained here; its latents are those without noise.

    Attributes:
        run_dir: its run folder.
    """

    run_dir: Path

    def functions(self) -> tuple[Encode, Encode]:
        """Those of the task; raises as `load_codec`."""
        task = load_codec(self.run_dir)
        return task.encode, task.decode

    def arrays(self, data_dir: Path | None) -> dict[str, Any]:
        """The parameters and the scale, for which `data_dir` is read where it isn't kept yet."""
        scale = scale_of(self.run_dir, data_dir)
        numbers = {name: jnp.float32(value) for name, value in scale._asdict().items()}
        return {"params": codec_params(self.run_dir), **numbers}


def codec_params(run_dir: Path) -> Params:
    """{"codec"} of a run, without its discriminator, on this process's first device.

    Raises:
        ValueError: the run holds no codec.
        FileNotFoundError: there is none, or it has no checkpoint yet.
    """
    mesh = make_mesh(devices=jax.local_devices()[:1])
    return {"codec": load_params(load_codec(run_dir), run_dir, mesh=mesh)["codec"]}


def scale_of(run_dir: Path, data_dir: Path | None = None) -> Scale:
    """The scale of a codec's latents, from `OF_SCALE` of its training pictures; kept once known.

    Source: Rombach et al. 2022 (arXiv:2112.10752), appendix G, which takes them from a batch.
    """
    run_dir = Path(run_dir).resolve()
    file = run_dir / "latents" / f"scale_{identity(run_dir)['digest']}.json"
    if all(there == "True" for there in said_by_all(str(file.is_file()))):
        return Scale(**json.loads(file.read_text()))
    task = load_codec(run_dir)
    source = task.source("train", data_dir)
    numbers = np.unique(np.linspace(0, len(source) - 1, min(OF_SCALE, len(source))).round())
    z = _encoded(_encoder(task.encode, codec_params(run_dir)), source, numbers.astype(int))
    found = Scale(1 / float(z.std()), float(z.mean()))
    _keep(file, (json.dumps(found._asdict()) + "\n").encode())
    return found


def latents(run_dir: Path, source: Source, data_dir: Path | None = None) -> Source:
    """A source whose images are the latents of another one's, z_0, float32 [h w z].

    Each file is computed by one process, where it's missing; all wait until all are there.

    Args:
        run_dir: of the codec.
        source: of pictures of the codec's size; its other features stay.
        data_dir: of the codec's own source, for the scale.

    Raises:
        ValueError: the run holds no codec, or one of pictures of another size.
        FileNotFoundError: there is none, or it has no checkpoint yet.
    """
    task = load_codec(run_dir)
    files = _kept("latents", run_dir, source, task, task.encode)
    return _Latents(source, files, scale_of(run_dir, data_dir))


def codes(run_dir: Path, source: Source) -> Source:
    """A source whose images are the codes of another one's, int32 [h w]; as `latents`.

    Raises:
        ValueError: the run holds no vector-quantised codec, or one of pictures of another size.
        FileNotFoundError: there is none, or it has no checkpoint yet.
    """
    task = load_vq(run_dir)
    return _Kept(source, _kept("codes", run_dir, source, task, task.codes))


def encodable(run_dir: Path, source: Source, data_dir: Path | None = None) -> Source:
    """The source itself, for encoding its pictures on the fly: the scale is known then.

    Raises:
        ValueError: the run holds no codec.
        FileNotFoundError: there is none, or it has no checkpoint yet.
    """
    scale_of(run_dir, data_dir)
    return source


def load_vq(run_dir: Path) -> VQTask:
    """The vector-quantised codec that a run folder trained.

    Raises:
        ValueError: it trained something else.
        FileNotFoundError: there is no such run.
    """
    task = load_codec(run_dir)
    if not isinstance(task, VQTask):
        raise ValueError(f"{run_dir} has no codes; name a run such as runs/vq_emoji64.")
    return task


def _kept(
    what: str, run_dir: Path, source: Source, task: CodecTask, encode: Encode
) -> tuple[np.ndarray, ...]:
    """What `encode` makes of all of a source, in files of `PER_FILE` records, mapped to memory."""
    run_dir = Path(run_dir).resolve()
    if tuple(source.image_shape) != tuple(task.image_shape):  # the codec's own were perhaps parts
        raise ValueError(
            f"{source.name} has pictures of {source.image_shape}, and the codec in {run_dir} is "
            f"kept for {task.image_shape}; encode others on the fly."
        )
    of = f"{what} {identity(run_dir)['digest']} {len(source)} {PER_FILE} {_sampled(source)}"
    of += f" {task.codec!r}"  # parameters of the same shapes may be read by other layers
    folder = run_dir / "latents" / hashlib.sha256(of.encode()).hexdigest()[:16]
    files = [folder / f"{k:05d}.npy" for k in range(-(-len(source) // PER_FILE))]
    own = range(jax.process_index(), len(files), jax.process_count())
    missing = [k for k in own if not files[k].is_file()]
    if any(int(count) for count in said_by_all(str(len(missing)))):
        run = _encoder(encode, codec_params(run_dir))  # which all processes read together
        folder.mkdir(parents=True, exist_ok=True)
        for k in tqdm(missing, desc=f"{what} of {source.name}", unit="file", disable=None):
            numbers = np.arange(k * PER_FILE, min((k + 1) * PER_FILE, len(source)))
            stream = io.BytesIO()
            np.save(stream, _encoded(run, source, numbers))
            write_atomically(files[k], stream.getvalue())
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(f"{what} of {source.name}")
    return tuple(np.load(file, mmap_mode="r", allow_pickle=False) for file in files)


def _sampled(source: Source) -> str:
    """A digest of some of the pictures: a name and a length may be those of other data."""
    digest = hashlib.sha256()
    for number in np.unique(np.linspace(0, len(source) - 1, 64).round()):
        digest.update(np.asarray(source[int(number)]["image"]).tobytes())
    return digest.hexdigest()


def _encoder(encode: Encode, params: Params) -> Callable[[np.ndarray], np.ndarray]:
    """On all devices of this process."""
    mesh = make_mesh(devices=jax.local_devices())
    params = jax.device_put(params, replicated(mesh))
    run = jax.jit(under(mesh, lambda params, x: encode(params, x / 127.5 - 1)))
    cut = batched(mesh)
    return lambda pixels: np.asarray(run(params, jax.device_put(np.float32(pixels), cut)))


def _encoded(
    run: Callable[[np.ndarray], np.ndarray], source: Source, numbers: np.ndarray
) -> np.ndarray:
    """Latents or codes of these records, a batch at a time; the last ones are filled up."""
    parts, beat = [], heartbeat()
    size = math.lcm(32, jax.local_device_count())
    for start in range(0, len(numbers), size):
        beat(None)
        some = numbers[start : start + size]
        full = np.pad(some, (0, size - len(some)), mode="edge")
        pixels = np.stack([source[int(i)]["image"] for i in full])
        parts.append(run(pixels)[: len(some)])
    return np.concatenate(parts)


def _keep(file: Path, content: bytes) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, content)
    except OSError as error:
        print(f"warning: {file.name} wasn't kept: {error}", flush=True)


@dataclass(frozen=True, eq=False)
class _Kept:
    source: Source
    files: tuple[np.ndarray, ...]

    @property
    def name(self) -> str:
        return f"{self.source.name}, encoded"

    @property
    def image_shape(self) -> tuple[int, ...]:
        return self.files[0].shape[1:]

    @property
    def classes(self) -> int | None:
        return self.source.classes

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, i: int) -> dict[str, Any]:
        file, row = divmod(i, len(self.files[0]))
        return {**self.source[i], "image": self.row(self.files[file][row])}

    def row(self, kept: np.ndarray) -> np.ndarray:
        return np.asarray(kept)


@dataclass(frozen=True, eq=False)
class _Latents(_Kept):
    scale: Scale

    def row(self, kept: np.ndarray) -> np.ndarray:
        return ((kept - self.scale.shift) * self.scale.scale).astype(np.float32)
