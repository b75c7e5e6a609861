"""What both sides of `speed.py` are given, and how large it is."""

from argparse import Namespace

import numpy as np

TABLE = 1000  # steps of the schedule's table
CLASSES = 10  # of the labels that the DiT reads; one more is none


def inputs(args: Namespace) -> dict[str, np.ndarray]:
    """x, pictures [b h w 3], table indices and labels [b]."""
    rng = np.random.default_rng(0)
    shape = (args.batch_size, args.image_size, args.image_size, 3)
    x = rng.standard_normal(shape, np.float32)
    return {
        "x": x,
        "pictures": np.clip(0.5 * x, -1, 1),
        "index": rng.integers(0, TABLE, args.batch_size),
        "label": rng.integers(0, CLASSES, args.batch_size),
    }
