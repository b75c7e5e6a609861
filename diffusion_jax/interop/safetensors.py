"""Named arrays in safetensors files: read one by one, written one by one.

The format is the header's length (8 bytes, little-endian), a JSON header of dtypes, shapes and
places, then the arrays.

Source: https://huggingface.co/docs/safetensors
"""

import contextlib
import json
import os
import struct
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
INDEX, WHOLE = "model.safetensors.index.json", "model.safetensors"


class Tensors:
    """Named arrays of one or more files, which stay on the disk until `read`.

    Attributes:
        where: what was opened.
        shapes: name -> shape.
        dtypes: name -> dtype, in safetensors' words: "F32", "BF16", "I64", ...
    """

    def __init__(self, where: Path, handles: Mapping[str, Any]) -> None:
        self.where = where
        self._handles = dict(handles)
        slices = {name: handle.get_slice(name) for name, handle in self._handles.items()}
        self.shapes = {name: tuple(s.get_shape()) for name, s in slices.items()}
        self.dtypes = {name: str(s.get_dtype()) for name, s in slices.items()}

    def read(self, name: str) -> np.ndarray:
        """One array, in the dtype of the file."""
        return self._handles[name].get_tensor(name)

    def under(self, prefix: str) -> "Tensors":
        """Those whose names start so."""
        chosen = {n: handle for n, handle in self._handles.items() if n.startswith(prefix)}
        return Tensors(self.where, chosen)


@contextlib.contextmanager
def open_tensors(path: str | os.PathLike[str]) -> Iterator[Tensors]:
    """The arrays of a file, of an index's shards, or of a folder: its `model.safetensors`, its
    shards, or its only file.

    Raises:
        ValueError: a pickle, a truncated or another file, an index without a map of arrays to
            files, shards that lack what it names, or a folder of several files without an index.
        FileNotFoundError: no such file, or none in the folder.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    index, files = _files(path)
    handles: dict[str, Any] = {}
    with contextlib.ExitStack() as stack:
        for file in files:
            if not file.is_file():
                raise FileNotFoundError(f"there is no {file}.")
            try:
                handle: Any = stack.enter_context(safe_open(file, framework="numpy"))
            except SafetensorError as error:
                raise ValueError(
                    f"{file} is cut short, or isn't a safetensors file ({error}); fetch it again."
                ) from error
            handles.update(dict.fromkeys(handle.keys(), handle))
        missing = sorted(index - handles.keys())
        if missing:
            raise ValueError(f"the shards of {path} lack {', '.join(missing)}, which they promise.")
        yield Tensors(path, handles)


def _files(path: Path) -> tuple[set[str], list[Path]]:
    """The names that an index promises (none without one), and the files."""
    if path.is_file():
        if path.suffix == ".json":
            return _shards(path)
        refuse_pickle(path)
        return set(), [path]
    if not path.is_dir():
        raise FileNotFoundError(f"there is no {path}.")
    if (path / WHOLE).is_file():
        return set(), [path / WHOLE]
    if (path / INDEX).is_file():
        return _shards(path / INDEX)
    found = sorted(path.glob("*.safetensors"))
    if len(found) == 1:
        return set(), found
    if found:
        names = [file.name for file in found]
        raise ValueError(f"{path} has no {INDEX} and several files; name one of {names}.")
    for file in sorted(path.iterdir()):
        refuse_pickle(file)
    raise FileNotFoundError(f"{path} has no safetensors files.")


def _shards(index: Path) -> tuple[set[str], list[Path]]:
    shards = read_json(index).get("weight_map")
    if not isinstance(shards, dict) or not all(isinstance(n, str) for n in shards.values()):
        raise ValueError(f"{index} has no weight_map, an object of array -> file name.")
    names = sorted(set(shards.values()))
    outside = [name for name in names if Path(name).name != name]
    if outside:
        raise ValueError(f"{index} names files outside of its folder: {outside}.")
    return set(shards), [index.parent / name for name in names]


def refuse_pickle(path: Path) -> None:
    """Refuses files that would run code."""
    if path.suffix in PICKLES:
        raise ValueError(
            f"{path} is a pickle, which may run any code when it is read. Convert it where you "
            "trust it: `torch.load` it with weights_only=True, then `safetensors.torch.save_file` "
            "its state; or load it with transformers, and `save_pretrained`."
        )


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file's object."""
    try:
        value = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path} isn't JSON: {error}.") from error
    if not isinstance(value, dict):
        raise ValueError(f"{path} holds no JSON object.")
    return value


def write_tensors(
    path: str | os.PathLike[str],
    shapes: Mapping[str, tuple[int, ...]],
    read: Callable[[str], np.ndarray],
) -> None:
    """Writes float32 arrays, one in memory at a time; the file appears when it is whole.

    Args:
        path: of the file.
        shapes: name -> shape.
        read: name -> the array.

    Raises:
        ValueError: an array of another shape.
    """
    path = Path(path)
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}  # transformers asks for it
    start = 0
    for name, shape in shapes.items():
        stop = start + 4 * int(np.prod(shape, dtype=np.int64))
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [start, stop]}
        start = stop
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            file.write(struct.pack("<Q", len(text)) + text)
            for name, shape in shapes.items():
                array = np.asarray(read(name), "<f4")
                if array.shape != shape:
                    raise ValueError(f"{name} has shape {array.shape}, and {shape} was announced.")
                file.write(np.ascontiguousarray(array).data)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
