"""Pictures of texts from one folder of weights, ours and diffusers' on PyTorch: time and memory.

    python benchmarks/random_checkpoint.py runs/random_mid --size mid
    python benchmarks/checkpoint_speed.py runs/random_mid

Both draw from the same noise by DDIM with guidance, text encoders and decoder included, in float32,
each in a process of its own, and take turns; the first picture of each, which compiles ours, isn't
counted, and must be the same. Run it on a quiet machine (`benchmarks/speed.py` says why).
"""

import dataclasses
import os
import statistics
import sys
import time
from argparse import Namespace
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import tyro

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.clip_speed import memory
from benchmarks.sides import Worker, busy_cores, machine, serve, stay_on

GAMMA = 7.5


def noise(args: Namespace, seed: int) -> np.ndarray:
    """x_1 of the latents [1 h w 4]."""
    return np.random.default_rng(seed).standard_normal((1, *args.latents, 4), np.float32)


def ours(connection: Connection, args: Namespace) -> None:
    from diffusion_jax.training.platform import set_xla_flags

    set_xla_flags()
    stay_on(args.threads)
    import jax
    import jax.numpy as jnp

    from diffusion_jax.interop import load_stable_diffusion
    from diffusion_jax.interop.sd_system import load_tokenizers, system_of, tokens_of, told_of
    from diffusion_jax.samplers import DDIM
    from diffusion_jax.systems.latent import LatentDiffusion

    parts = load_stable_diffusion(args.folder)
    factor = parts.codec.module.factor
    size = args.latents[0] * factor, args.latents[1] * factor
    tokenizers = load_tokenizers(args.folder, parts)
    system = system_of(parts, size, steps=args.steps, guidance=GAMMA, sampler=DDIM())
    read = jax.jit(lambda texts, negative: told_of(parts, texts, negative, size))
    sample = jax.jit(LatentDiffusion.sample)

    def draw(text: str, negative: str, gamma: float, seed: int) -> np.ndarray:
        prompted = tokens_of(tokenizers, [text], [negative])
        ids = ([jnp.asarray(one.ids) for one in some] for some in prompted)
        asked = dataclasses.replace(system, stage=dataclasses.replace(system.stage, guidance=gamma))
        x = jnp.asarray(noise(args, seed))
        key, index = jax.random.key(seed), jnp.arange(1)
        return np.asarray(sample(asked, key, read(*ids), index, x)) / 2 + 0.5

    def timed(*asked) -> tuple[float, np.ndarray]:
        start = time.perf_counter()
        picture = draw(*asked)
        return time.perf_counter() - start, picture

    serve(connection, {
        "draw": timed,
        "programs": lambda: (read._cache_size(), sample._cache_size()),
        "memory": lambda: memory("VmHWM"),
        "versions": lambda: f"jax {jax.__version__}",
    })  # fmt: skip


def theirs(connection: Connection, args: Namespace) -> None:
    import torch

    torch.set_num_threads(args.threads)
    stay_on(args.threads)
    import diffusers

    pipeline = diffusers.StableDiffusionPipeline.from_pretrained(args.folder)
    config = pipeline.scheduler.config  # which doesn't say that latents aren't clipped
    pipeline.scheduler = diffusers.DDIMScheduler.from_config(config, clip_sample=False)
    pipeline.set_progress_bar_config(disable=True)

    def draw(text: str, negative: str, gamma: float, seed: int) -> tuple[float, np.ndarray]:
        start = time.perf_counter()
        x = torch.from_numpy(noise(args, seed).transpose(0, 3, 1, 2))
        with torch.inference_mode():
            picture = pipeline(
                text, negative_prompt=negative, guidance_scale=gamma, latents=x,
                num_inference_steps=args.steps, output_type="np",
            ).images  # fmt: skip
        return time.perf_counter() - start, picture

    serve(connection, {
        "draw": draw,
        "memory": lambda: memory("VmHWM"),
        "versions": lambda: f"diffusers {diffusers.__version__}, torch {torch.__version__}",
    })  # fmt: skip


def main(
    folder: tyro.conf.Positional[Path],
    steps: int = 50,
    latents: tuple[int, int] = (32, 32),
    rounds: int = 3,
    threads: int = 2,
) -> None:
    """Prints the table.

    Args:
        folder: of benchmarks/random_checkpoint.py, or a pipeline of your own.
        steps: of DDIM.
        latents: their height and width.
        rounds: turns of each side, each with another text, seed and guidance.
        threads: cores of each side.
    """
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    busy = busy_cores()
    note = f"BUSY MACHINE ({busy:.1f} cores before the start): these times are void.\n"
    print(note if busy > 0.2 else "", end="")
    args = Namespace(folder=folder, steps=steps, latents=latents, threads=threads)
    sides = [Worker("diffusion_jax", ours, args), Worker("diffusers", theirs, args)]
    first, pictures = zip(*(s.ask("draw", "a cat", "", GAMMA, 0) for s in sides), strict=True)
    apart = float(np.abs(pictures[0] - pictures[1]).max())
    print(f"the same picture: largest difference {apart:.1e} of 1; our first took {first[0]:.0f} s")
    if apart > 1e-2:
        sys.exit("the pictures differ: nothing was timed.")
    times: dict[str, list[float]] = {side.name: [] for side in sides}
    for number in range(rounds):
        asked = f"a dog {number}", "blurry " * number, 2.0 + number, number + 1
        for side in sides if number % 2 == 0 else sides[::-1]:
            times[side.name].append(side.ask("draw", *asked)[0])
    programs = sides[0].ask("programs")
    a, b = (statistics.median(times[side.name]) for side in sides)
    held = [side.ask("memory") / 2**20 for side in sides]
    print(f"{machine()}, {threads} threads; {'; '.join(s.ask('versions') for s in sides)}")
    print(f"{rounds + 1} texts, negatives, guidances and seeds: {programs} programs were compiled")
    print("| | ours | diffusers | ratio |\n|---|---|---|---|")
    print(f"| a picture, {steps} steps | {a:.1f} s | {b:.1f} s | {b / a:.2f} |")
    ours_held, theirs_held = held
    ratio = theirs_held / ours_held
    print(f"| the process, at most | {ours_held:,.0f} MiB | {theirs_held:,.0f} MiB | {ratio:.2f} |")
    for side in sides:
        side.close()


if __name__ == "__main__":
    tyro.cli(main)
