"""Does a CLIP of shapes know which colour is whose? python benchmarks/clip_binding.py RUN

Of held-out captions of two objects that differ in colour and shape, the picture chooses between
its own caption and one with something exchanged. Chance is 50 %.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import tyro

from diffusion_jax.training.platform import set_xla_flags

set_xla_flags()

from clip_runs import load_clip_run, percent  # noqa: E402

from diffusion_jax.data import (  # noqa: E402
    COLOURS,
    SHAPES,
    Description,
    parse_caption,
    shapes,
    write_caption,
)
from diffusion_jax.evaluation.retrieval import matching, retrieval  # noqa: E402

OPPOSITE = {"above": "below", "below": "above", "left of": "right of", "right of": "left of"}


def another(value: str, values: tuple[str, ...], taken: set[str]) -> str:
    """The next value that isn't taken."""
    rest = [v for v in values if v not in taken]
    return rest[values.index(value) % len(rest)]


def swapped_colours(said: Description) -> Description:
    a, b, *rest = said.things
    things = (a._replace(colour=b.colour), b._replace(colour=a.colour), *rest)
    return said._replace(things=things)


def another_colour(said: Description) -> Description:
    a, b, *rest = said.things
    colour = another(a.colour, tuple(COLOURS), {a.colour, b.colour})
    return said._replace(things=(a._replace(colour=colour), b, *rest))


def another_shape(said: Description) -> Description:
    a, b, *rest = said.things
    shape = another(a.shape, SHAPES, {a.shape, b.shape})
    return said._replace(things=(a._replace(shape=shape), b, *rest))


def opposite_relation(said: Description) -> Description | None:
    return said._replace(relation=OPPOSITE[said.relation]) if said.relation else None


DISTRACTORS: dict[str, Callable[[Description], Description | None]] = {
    "colours exchanged": swapped_colours,
    "one colour another": another_colour,
    "one shape another": another_shape,
    "relation reversed": opposite_relation,
}


def main(run: tyro.conf.Positional[Path], num: int = 2000) -> None:
    """Prints the table of docs/clip.md.

    Args:
        run: of configs/shapes_clip.py.
        num: test pictures to look at.
    """
    clip = load_clip_run(run)
    source = shapes("test", 16)
    records = [source[i] for i in range(min(num, len(source)))]
    pictures = np.stack([r["image"] for r in records]) / np.float32(127.5) - 1
    images = np.asarray(clip.images(pictures))
    captions = [r["caption"] for r in records]
    distinct = sorted(set(captions))
    both = retrieval(images, np.asarray(clip.texts(distinct)), matching(captions, distinct))
    print(f"{len(records)} test pictures, {len(distinct)} captions: R@1 / 5 / 10, %, picture to "
          f"text {percent(list(both.image_to_text.found.values()))} (chance "
          f"{percent(list(both.image_to_text.chance.values()))}), text to picture "
          f"{percent(list(both.text_to_image.found.values()))} (chance "
          f"{percent(list(both.text_to_image.chance.values()))})\n")  # fmt: skip
    print("| against the caption with | pictures | right, % |\n|---|---:|---:|")
    own = np.asarray(clip.texts(captions))
    for name, change in DISTRACTORS.items():
        rows, texts = [], []
        for i, caption in enumerate(captions):
            said = parse_caption(caption)
            if len(said.things) != 2 or not differ(said):
                continue
            other = change(said)
            if other is not None:
                rows.append(i)
                texts.append(write_caption(other))
        wrong = np.asarray(clip.texts(texts))
        margin = (images[rows] * (own[rows] - wrong)).sum(1)
        right = np.mean((margin > 0) + 0.5 * (margin == 0))
        print(f"| {name} | {len(rows)} | {percent([right])} |")


def differ(said: Description) -> bool:
    a, b = said.things
    return a.colour != b.colour and a.shape != b.shape


if __name__ == "__main__":
    tyro.cli(main)
