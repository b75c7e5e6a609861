"""Time and memory of unCLIP's chain: python benchmarks/unclip_speed.py runs/emoji_decoder
--priors runs/emoji_prior runs/emoji_code_prior --upsampler runs/emoji_upsampler

- The autoregressive prior's embeddings a second, with its cache of keys and values and without:
  the same draws, in alternation, medians of several; both without guidance.
- The chain, from prompts to the last upsampler's pictures, as one jitted function, for one prompt
  and for 16: medians of several, and the memory that the compiled program and the process took.
"""

import functools
import resource
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from diffusion_jax.training.platform import set_xla_flags

set_xla_flags()

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
from unclip_runs import clip_of, load_decoder  # noqa: E402

from diffusion_jax.samplers.autoregressive import sample_codes  # noqa: E402
from diffusion_jax.systems import CodeStage, Prompts, Unclip  # noqa: E402
from diffusion_jax.training.stages import load_prior  # noqa: E402

TEXTS = ("cat face, in noto style", "red apple, in openmoji style", "a blue car", "smiling sun")


def uncached(stage: CodeStage, key: Any, known: Any, index: Any) -> Any:
    """`CodeStage.draw` without guidance, that reads the text and all codes again for each code."""
    key_codes, key_alignment = jax.random.split(key)
    half = stage.network.alignments // 2
    draw = jax.vmap(lambda k: jax.random.randint(k, (), half, 2 * half))
    alignment = draw(jax.vmap(functools.partial(jax.random.fold_in, key_alignment))(index))
    condition, count = stage.condition(known), stage.network.count

    def logits(codes: Any) -> Any:
        variables = {"params": stage.params}
        return stage.network.apply(variables, codes, condition, alignment)

    def following(codes: Any, code: Any, i: Any) -> tuple[Any, Any]:
        codes = codes.at[:, i].set(code)
        return jnp.take(logits(codes), i + 1, axis=1), codes

    codes = jnp.zeros((len(index), count), jnp.int32)
    first = logits(codes)[:, 0]
    return stage.codes.decode(sample_codes(key_codes, first, codes, following, count, index=index))


def seconds(run: Callable[..., Any], *args: Any) -> float:
    start = time.perf_counter()
    jax.block_until_ready(run(*args))
    return time.perf_counter() - start


def main(
    decoder: tyro.conf.Positional[Path],
    priors: tuple[Path, ...],
    upsampler: tuple[Path, ...] = (),
    steps: int = 25,
    rounds: int = 5,
    batches: tuple[int, ...] = (1, 16, 64),
    data_dir: Path | None = None,
) -> None:
    """Prints the tables.

    Args:
        decoder: a run of configs/emoji_decoder.py.
        priors: runs of priors; the cache is an autoregressive one's.
        upsampler: runs of upsamplers.
        steps: of the decoder's sampler and a diffusion prior's; an upsampler has 25.
        rounds: of measurements, of which the median counts.
        batches: embeddings at a time.
        data_dir: folder of prepared TFDS sets.
    """
    clip = clip_of(decoder, data_dir)

    def told(count: int) -> Prompts:
        return clip.told([TEXTS[i % len(TEXTS)] for i in range(count)])

    how: Any = {"steps": steps, "guidance": 1.0, "decoder": decoder, "data_dir": data_dir}
    loaded = {run.name: load_prior(run, **how) for run in priors}
    print("| embeddings at a time | with the cache, a second | without | ratio | difference |")
    print("|---|---|---|---|---|")
    key = jax.random.key(0)
    for stage in (s for s in loaded.values() if isinstance(s, CodeStage)):
        for batch in batches:
            prompt, index = told(batch), jnp.arange(batch)
            known = {"tokens": prompt.tokens, "text_embedding": prompt.embedding}
            ways = [jax.jit(CodeStage.draw), jax.jit(uncached)]
            both = [np.asarray(way(stage, key, known, index)) for way in ways]
            times: list[list[float]] = [[], []]
            for _ in range(rounds):
                for way, found in zip(ways, times, strict=True):
                    found.append(seconds(way, stage, key, known, index))
            cached, plain = (batch / statistics.median(found) for found in times)
            apart = np.abs(both[0] - both[1]).max()
            print(f"| {batch} | {cached:.1f} | {plain:.1f} | {cached / plain:.2f} | {apart:.1g} |")

    unclip = load_decoder(decoder, steps=steps, length=clip.task.length, upsamplers=upsampler)
    size = (unclip.upsamplers or (unclip.decoder,))[-1].shape[0]
    print(f"\n| chain to {size}x{size} | prompts | compiled in, s | seconds | memory, MB |")
    print("|---|---|---|---|---|")
    for name, stage in loaded.items():
        whole = replace(unclip, prior=stage)
        for count in (1, 16):
            args = (whole, key, told(count), jnp.arange(count))
            began = time.perf_counter()
            program = jax.jit(Unclip.sample).lower(*args).compile()
            compiled = time.perf_counter() - began
            program(*args)
            found = statistics.median(seconds(program, *args) for _ in range(rounds))
            memory: Any = program.memory_analysis()
            most = memory.argument_size_in_bytes + memory.temp_size_in_bytes
            print(f"| {name} | {count} | {compiled:.0f} | {found:.2f} | {most / 1e6:.0f} |")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"\nthe process took at most {peak / 1e3:.0f} MB, the compiler included")


if __name__ == "__main__":
    tyro.cli(main)
