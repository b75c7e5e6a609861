"""A training step of a small CLIP, ours and transformers' on PyTorch: time and memory.

    python benchmarks/clip_speed.py

Both hold the same parameters, each in a process of its own, and take turns; a turn warms up with
one call. A step is forward, backward, gradient clipping, AdamW and the average of the parameters,
in float32. Memory is the most that a process has held, less what it held before the first step.
Run it on a quiet machine (`benchmarks/speed.py` says why).
"""

import os
import statistics
import sys
import tempfile
from argparse import Namespace
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import tyro

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.layer_times import timed
from benchmarks.sides import Worker, busy_cores, machine, serve, stay_on

WORDS, LENGTH, SIZE = 2048, 32, 64


def inputs(batch_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Pictures in [-1, 1] and texts that end with the last number."""
    rng = np.random.default_rng(0)
    pictures = rng.uniform(-1, 1, (batch_size, SIZE, SIZE, 3)).astype(np.float32)
    tokens = rng.integers(0, WORDS - 1, (batch_size, LENGTH))
    tokens[:, -1] = WORDS - 1
    return pictures, tokens.astype(np.int32)


def memory(kind: str) -> int:
    """VmHWM, the most that this process has held, or VmRSS, what it holds, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(kind))


def ours(connection: Connection, args: Namespace) -> None:
    from diffusion_jax.training.platform import set_xla_flags

    set_xla_flags()
    stay_on(args.threads)
    import jax
    import optax

    from diffusion_jax.interop.clip import save_clip
    from diffusion_jax.losses import Pairs, contrastive_loss
    from diffusion_jax.models.clip import CLIP, TextTransformer, emoji_tower
    from diffusion_jax.training.flops import count_flops
    from diffusion_jax.training.optimizers import adamw
    from diffusion_jax.training.sharding import abstract_like, data_mesh, shardings_of
    from diffusion_jax.training.step import init_state, make_step

    text = TextTransformer(128, WORDS, LENGTH, 128, layers=2, heads=4, end=WORDS - 1)
    clip = CLIP(emoji_tower("vit"), text)
    pictures, tokens = inputs(args.batch_size)
    optimizer = adamw(optax.constant_schedule(1e-4))

    def start(key):
        return init_state(clip.init(key, pictures[:1], tokens[:1])["params"], optimizer)

    def embed(params, key, batch):
        image, text, scale = clip.apply({"params": params}, batch["image"], batch["tokens"])
        return Pairs(image.embedding, text.embedding, scale)

    like = abstract_like(start, jax.random.key(0), data_mesh())
    state = jax.jit(start, out_shardings=shardings_of(like))(jax.random.key(0))
    loss = contrastive_loss(embed)
    step = make_step(loss, optimizer, like)
    batch, key = {"image": pictures, "tokens": tokens}, jax.random.key(0)
    held = 0

    def run():
        nonlocal state
        state, metrics = step(state, key, batch)
        return jax.block_until_ready(metrics)

    def save(folder):
        nonlocal held
        save_clip(folder, clip, state.params)
        value = float(jax.jit(lambda p: loss(p, (), key, batch)[0])(state.params))
        held = memory("VmRSS")
        return value

    serve(connection, {
        "save": save,
        "flops": lambda: count_flops(step, state, key, batch),
        "time": lambda calls: timed(run, calls),
        "memory": lambda: memory("VmHWM") - held,
        "versions": lambda: f"jax {jax.__version__}",
    })  # fmt: skip


def theirs(connection: Connection, args: Namespace) -> None:
    import torch

    torch.set_num_threads(args.threads)
    stay_on(args.threads)
    import transformers
    from transformers import CLIPModel

    model, average, optimizer, parameters = None, None, None, []
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073])[:, None, None]
    std = torch.tensor([0.26862954, 0.26130258, 0.27577711])[:, None, None]
    pictures, tokens = inputs(args.batch_size)
    pixels = (torch.from_numpy(pictures).permute(0, 3, 1, 2) / 2 + 0.5 - mean) / std
    ids = torch.from_numpy(tokens).long()
    held = 0

    def answer():
        return model(input_ids=ids, pixel_values=pixels, return_loss=True).loss

    def load(folder):
        nonlocal model, average, optimizer, parameters, held
        model = CLIPModel.from_pretrained(folder, attn_implementation="sdpa").train()
        parameters = list(model.parameters())
        average = [p.detach().clone() for p in parameters]
        optimizer = torch.optim.AdamW(parameters, lr=1e-4, weight_decay=0.01, fused=True)
        with torch.inference_mode():
            value = float(answer())
        held = memory("VmRSS")
        return value

    def run():
        answer().backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            torch._foreach_lerp_(average, parameters, 1e-3)

    serve(connection, {
        "load": load,
        "time": lambda calls: timed(run, calls),
        "memory": lambda: memory("VmHWM") - held,
        "versions": lambda: f"transformers {transformers.__version__}, torch {torch.__version__}",
    })  # fmt: skip


def main(batch_size: int = 256, rounds: int = 5, calls: int = 3, threads: int = 2) -> None:
    """Prints the row of docs/clip.md.

    Args:
        batch_size: pairs a step.
        rounds: turns of each side.
        calls: timed steps a turn.
        threads: cores of each side.
    """
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    busy = busy_cores()
    note = f"BUSY MACHINE ({busy:.1f} cores before the start): these times are void.\n"
    print(note if busy > 0.2 else "", end="")
    args = Namespace(batch_size=batch_size, threads=threads)
    sides = [Worker("diffusion_jax", ours, args), Worker("transformers", theirs, args)]
    with tempfile.TemporaryDirectory() as folder:
        losses = sides[0].ask("save", folder), sides[1].ask("load", folder)
    print(f"losses of the same batch: {losses[0]:.6f} and {losses[1]:.6f}")
    if abs(losses[0] / losses[1] - 1) > 1e-4:
        sys.exit("the models differ: nothing was timed.")
    times: dict[str, list[float]] = {side.name: [] for side in sides}
    for number in range(rounds):
        for side in sides if number % 2 == 0 else sides[::-1]:
            times[side.name] += side.ask("time", calls)
    a, b = (statistics.median(times[side.name]) for side in sides)
    held = [side.ask("memory") / 2**20 for side in sides]
    versions = [side.ask("versions") for side in sides]
    print(f"{machine()}, {threads} threads; {'; '.join(versions)}")
    print(f"{sides[0].ask('flops') / 1e9:.0f} GFLOP a step of {batch_size} pairs")
    print("| | ours | transformers | ratio |\n|---|---|---|---|")
    print(f"| training step | {a:,.0f} ms | {b:,.0f} ms | {b / a:.2f} |")
    print(f"| memory | {held[0]:,.0f} MiB | {held[1]:,.0f} MiB | {held[1] / held[0]:.2f} |")
    for side in sides:
        side.close()


if __name__ == "__main__":
    tyro.cli(main)
