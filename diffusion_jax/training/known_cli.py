"""What sample.py's flags tell a model: labels, prompts, layouts, maps and pictures.

Each kind of conditioning has one flag. A flag that the model's conditioning doesn't read is
refused; what no flag says comes from held-out examples, whose labels aren't told beside a flag.
"""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from diffusion_jax.data.images import read_map, read_png
from diffusion_jax.models import conditioning as conditions
from diffusion_jax.models import image_conditioning as images
from diffusion_jax.models.conditioning import Conditioning, Known
from diffusion_jax.models.text_conditioning import Text, Tokens
from diffusion_jax.training.sampling import usual_known
from diffusion_jax.training.task import ToldTask


@dataclasses.dataclass(frozen=True)
class Told:
    """What the model is told; what isn't said comes from held-out examples."""

    label: tuple[int, ...] = ()
    """labels to draw in turn; -1 is none (default: every class in turn; where a model is told
    more, held-out examples', and none beside another flag)"""
    prompt: tuple[str, ...] = ()
    """captions to draw in turn"""
    layout: tuple[str, ...] = ()
    """the boxes of one layout, each "NAME X0 Y0 X1 Y1" with corners as fractions of the picture"""
    segmentation: Path | None = None
    """PNG map of the picture's size: grey levels or palette entries are the classes, 0, 1, ..."""
    low_resolution: Path | None = None
    """small PNG to enlarge"""
    reference: Path | None = None
    """PNG whose grey or edges are told"""
    inpaint: Path | None = None
    """PNG to complete, with any model: it stays as it is where --mask is black"""
    mask: Path | None = None
    """PNG that is white where --inpaint is drawn anew"""


Reader = Callable[[ToldTask, Any, Any], Known]


def read_labels(experiment: ToldTask, part: Conditioning, labels: tuple[int, ...]) -> Known:
    most = np.iinfo(np.int32).max
    for label in labels:
        if abs(label) > most:
            raise ValueError(f"--label {label} is out of range: no model knows so many.")
    return {"label": np.array(labels, np.int32)}


def read_prompts(experiment: ToldTask, part: Text, prompts: tuple[str, ...]) -> Known:
    return {"tokens": np.stack([np.asarray(part.tokenizer.encode(text)) for text in prompts])}


def read_layout(experiment: ToldTask, part: conditions.Layout, written: tuple[str, ...]) -> Known:
    """One layout, of boxes "NAME X0 Y0 X1 Y1" with corners as fractions of the picture."""
    read = [read_box(text, experiment.class_names) for text in written]
    if len(read) > part.boxes:
        raise ValueError(f"--layout has {len(read)} boxes; this model takes {part.boxes}.")
    boxes = np.zeros((1, part.boxes, 4), np.float32)
    label = np.full((1, part.boxes), -1, np.int32)
    for i, (box, number) in enumerate(read):
        boxes[0, i], label[0, i] = box, number
    return {"boxes": boxes, "box_label": label}


def read_box(text: str, names: tuple[str, ...]) -> tuple[np.ndarray, int]:
    """Corners [4] and the label's number.

    Raises:
        ValueError: it isn't a known name and four numbers, in order and in [0, 1].
    """
    *words, x0, y0, x1, y1 = text.split() if len(text.split()) > 4 else [text, *4 * "-"]
    name = " ".join(words)
    try:
        box = np.array([x0, y0, x1, y1], np.float32)
    except ValueError:
        raise ValueError(
            f"--layout {text!r} should be a name and four numbers, in quotes: "
            f'"{names[0]} 0.1 0.1 0.45 0.45".'
        ) from None
    if name not in names:
        raise ValueError(f"--layout: no {name!r} is known; there are {', '.join(names)}.")
    if not (0 <= box[0] < box[2] <= 1 and 0 <= box[1] < box[3] <= 1):
        raise ValueError(
            f"--layout {text!r}: the corners X0 Y0 X1 Y1 must satisfy 0 <= X0 < X1 <= 1 and "
            "0 <= Y0 < Y1 <= 1."
        )
    return box, names.index(name)


def read_segmentation(experiment: ToldTask, part: Conditioning, path: Path) -> Known:
    height, width, _ = experiment.image_shape
    return {"segmentation": read_map(path, (height, width), what="--segmentation")[None]}


def read_low_resolution(experiment: ToldTask, part: images.LowResolution, path: Path) -> Known:
    height, width, channels = experiment.image_shape
    small = (height // part.factor, width // part.factor, channels)
    low = in_range(read_png(path, small, what="--low-resolution"))
    return {"low": low[None], "level": np.zeros(1, np.float32)}


def read_reference(experiment: ToldTask, part: Conditioning, path: Path) -> Known:
    picture = read_png(path, experiment.image_shape, what="--reference")
    return {"image": in_range(picture)[None]}


def read_hole(experiment: ToldTask, part: Conditioning | None, paths: tuple[Path, Path]) -> Known:
    """The picture and what is known of it: 0 where the mask is white."""
    picture = in_range(read_png(paths[0], experiment.image_shape, what="--inpaint"))
    height, width, _ = experiment.image_shape
    mask = read_png(paths[1], (height, width, 1), what="--mask") < 128
    if mask.all() or not mask.any():
        raise ValueError(
            f"--mask {paths[1]} is all {'black' if mask.all() else 'white'}, split at middle grey; "
            "white is drawn anew, black is kept."
        )
    return {"image": picture[None], "mask": mask[None].astype(np.float32)}


# A conditioning's kind -> (the option that tells it, how that is read).
READERS: Mapping[type, tuple[str, Reader]] = {
    conditions.ClassLabels: ("label", read_labels),
    Text: ("prompt", read_prompts),
    conditions.Layout: ("layout", read_layout),
    images.Segmentation: ("segmentation", read_segmentation),
    images.LowResolution: ("low_resolution", read_low_resolution),
    images.Grey: ("reference", read_reference),
    images.Edges: ("reference", read_reference),
    images.Inpainting: ("inpaint", read_hole),
}


def reader_of(part: Conditioning) -> tuple[str, Reader] | None:
    """The option that tells a conditioning, and how that is read; None where there is none."""
    return next((reader for kind, reader in READERS.items() if isinstance(part, kind)), None)


def known_from(experiment: ToldTask, num: int, told: Told, data_dir: Path | None) -> Known:
    """What the model is told of `num` pictures.

    Args:
        experiment: its conditioning says what it reads.
        num: of pictures; what is given for fewer is repeated in turn.
        told: the flags.
        data_dir: of held-out examples, for what wasn't given.

    Raises:
        ValueError: a flag that the model doesn't read, or one that can't be read.
    """
    if (told.inpaint is None) != (told.mask is None):
        raise ValueError(
            "--inpaint and --mask go together: a picture, and what of it to draw anew."
        )
    whole = experiment.conditioning
    parts = whole.parts if isinstance(whole, conditions.Joined) else (whole,)
    if experiment.tokenizer is not None:
        words = experiment.tokenizer(data_dir)
        parts = tuple(Text(words, p.drop) if isinstance(p, Tokens) else p for p in parts)
    reads: dict[str, Conditioning | None] = {
        kind[0]: part for part in parts if (kind := reader_of(part)) is not None
    }
    if len(experiment.image_shape) == 3:  # any model of pictures: its sampler keeps the pixels
        reads.setdefault("inpaint", None)
    values: dict[str, Any] = {
        **{name: getattr(told, name) for name, _ in READERS.values()},
        "inpaint": told.inpaint and (told.inpaint, told.mask),
    }
    label = reads.get("label")
    others = [values[o] for o, part in reads.items() if part is not None and part is not label]
    if label is not None and label.drop and any(others) and not values["label"]:
        values["label"] = (-1,)  # an unrelated example's would contradict what is said
    readers = dict(READERS.values())
    found: dict[str, Any] = {}
    for option, value in values.items():
        if not value:
            continue
        if option not in reads:
            raise ValueError(
                f"{as_flag(option)} was given, but this model doesn't read it; it reads "
                f"{' or '.join(map(as_flag, reads))}."
            )
        read = readers[option](experiment, reads[option], value)
        if "image" in found and "image" in read:
            raise ValueError(f"{as_flag(option)} and another flag each name the picture.")
        found |= {name: np.resize(v, (num, *np.shape(v)[1:])) for name, v in read.items()}
    given = all(values[option] for option, part in reads.items() if part is not None)
    if given and all(reader_of(part) for part in parts):
        return found
    return {**usual_known(experiment, num, data_dir), **found}


def as_flag(option: str) -> str:
    return "--" + option.replace("_", "-")


def in_range(levels: np.ndarray) -> np.ndarray:
    """Levels 0..255 to [-1, 1], float32; `to_uint8` gives them back exactly."""
    return (levels.astype(np.float32) / np.float32(127.5) - 1).astype(np.float32)


def check_finite(flag: str, value: float) -> None:
    """Raises ValueError for NaN, infinity, and what float32 would make infinite."""
    if not abs(value) <= float(np.finfo(np.float32).max):
        raise ValueError(f"{flag} is {value}; it must be a finite number of 32 bits.")
