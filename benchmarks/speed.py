"""Training step, forward pass and DDIM sampler of one network: ours and diffusers' on PyTorch.

    python benchmarks/speed.py                                        # U-Net and DiT
    python benchmarks/speed.py --model unet --channels 32 --image-size 16 --rounds 1 --steps 2
    python benchmarks/speed.py --model dit --width 64 --image-size 16 --rounds 1 --steps 2

Both sides hold the same network with the same parameters, on the same device, each in a process of
its own (their thread pools would disturb each other), and take turns in one run. A turn warms up
with one call that isn't timed. Times are medians over all rounds. On a CPU both compute in float32
and PyTorch is eager unless `--compile`; on a GPU both compute in bfloat16 with float32 parameters,
and PyTorch is compiled unless `--no-compile`.

A training step is forward, backward, gradient clipping, Adam and the average of the parameters;
random times and noise are drawn in it. PyTorch is in its default memory layout; its Adam is the
fused one. Operations are counted from the shapes of our program, for both sides (PyTorch's U-Net
does more: our upsampling takes 16 of its 36 products), and utilisation is of the device's peak,
whose source is printed. `--profile` also says where our U-Net's gradient spends its time.

Run it on a quiet machine. PyTorch's OpenMP threads spin while they wait for one another, so another
process on their cores makes them many times slower: a tiny training step took 1,900 ms instead of
80 beside a training run, and 80 with `--omp-wait-policy PASSIVE`.
"""

import argparse
import copy
import os
import statistics
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.sides import Worker, busy_cores, machine
from benchmarks.speed_jax import jax_worker
from benchmarks.speed_torch import torch_worker

TITLES = {"forward": "forward pass", "train": "training step", "sample": "DDIM sampler"}
TASKS = {
    "train": ["train"],
    "sample": ["forward", "sample"],
    "both": ["forward", "train", "sample"],
}


def main() -> None:
    args = parse_args()
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    print(f"{machine()}, {args.threads} threads", flush=True)
    busy = busy_cores()
    void = f"BUSY MACHINE ({busy:.1f} cores before the start): these times are void.\n"
    args.note = void if busy > 0.2 else ""
    print(args.note, end="", flush=True)
    if args.omp_wait_policy:
        os.environ["OMP_WAIT_POLICY"] = args.omp_wait_policy
    for model in ("unet", "dit") if args.model == "both" else (args.model,):
        race(args, model)


def race(args: argparse.Namespace, model: str) -> None:
    """Starts both sides of a model, compares them and ends them."""
    args = copy.copy(args)
    args.model = model
    ours = Worker("diffusion_jax", jax_worker, args)
    try:
        args.on_cpu, args.dtype = ours.ask("on_cpu"), ours.ask("dtype")
        if args.compile is None:
            args.compile = not args.on_cpu
        theirs = Worker("diffusers", torch_worker, args)
        try:
            compare(args, ours, theirs)
        finally:
            theirs.close()
    finally:
        ours.close()


def compare(args: argparse.Namespace, ours: Worker, theirs: Worker) -> None:
    """Checks that both sides are one network, times them in turns and prints the table."""
    state = theirs.ask("parameters")
    count = ours.ask("load", state)
    size = f"{args.image_size}x{args.image_size}x3, batch {args.batch_size}, {args.dtype}"
    print(f"\n{args.model}, {size}, {count:,} parameters", flush=True)
    agree(args, ours, theirs)

    tasks = TASKS[args.what]
    times: dict[tuple[str, str], list[float]] = {}
    for number in range(args.rounds):
        for task in tasks:
            order = (ours, theirs) if number % 2 == 0 else (theirs, ours)
            for side in order:
                calls = 1 if task == "sample" else args.calls
                times.setdefault((task, side.name), []).extend(side.ask("time", task, calls))
        line = "  ".join(
            f"{task} {times[task, ours.name][-1]:.0f} / {times[task, theirs.name][-1]:.0f} ms"
            for task in tasks
        )
        print(f"round {number + 1} of {args.rounds}: {line}  (ours / diffusers)", flush=True)

    peak, source = ours.ask("peak")
    print(
        f"\n{machine()}, {args.threads} threads; {ours.ask('versions')}; {theirs.ask('versions')}"
    )
    print(args.note, end="")
    print(f"utilisation of {peak / 1e12:.3g} TFLOP/s: {source}")
    print(f"\n{args.note}| {args.model}, median of all calls | GFLOPs | diffusion_jax, ms "
          "| diffusers, ms | diffusers / diffusion_jax | utilisation, ours | theirs |")  # fmt: skip
    print("|---|---|---|---|---|---|---|")
    for task in tasks:
        title = TITLES[task] + (f", {args.steps} steps" if task == "sample" else "")
        a, b = (statistics.median(times[task, side.name]) for side in (ours, theirs))
        flops = ours.ask("flops", task)
        used = [f"{flops / (1e-3 * ms) / peak:.1%}" for ms in (a, b)]
        print(
            f"| {title} | {flops / 1e9:.1f} | {a:.1f} | {b:.1f} | {b / a:.2f} "
            f"| {used[0]} | {used[1]} |",
            flush=True,
        )
    if args.profile:
        print("\n" + ours.ask("profile"))


def agree(args: argparse.Namespace, ours: Worker, theirs: Worker) -> None:
    """Ends the run unless both sides answer alike."""
    errors = []
    for question in TASKS["sample"]:
        a, b = (side.ask("answer", question) for side in (ours, theirs))
        errors.append(float(abs(a - b).max() / abs(b).max()))
    print(
        f"forward passes differ by {errors[0]:.1e} of the largest value, "
        f"{args.steps}-step samples by {errors[1]:.1e}",
        flush=True,
    )
    if errors[0] > (1e-4 if args.dtype == "float32" else 5e-2):
        sys.exit("the networks differ: nothing was timed.")


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", choices=["unet", "dit", "both"], default="both")
    parser.add_argument("--what", choices=list(TASKS), default="both")
    parser.add_argument("--channels", type=int, default=64, help="U-Net: multiple of 32")
    parser.add_argument("--multipliers", type=int, nargs="+", default=[1, 2, 2], help="U-Net")
    parser.add_argument("--blocks", type=int, default=2, help="U-Net: of a level")
    parser.add_argument("--attention", type=int, default=16, help="U-Net: height with attention")
    parser.add_argument("--width", type=int, default=256, help="DiT: of the tokens")
    parser.add_argument("--depth", type=int, default=6, help="DiT: blocks")
    parser.add_argument("--heads", type=int, default=4, help="DiT: of each attention")
    parser.add_argument("--patch", type=int, default=2, help="DiT: height of a token")
    parser.add_argument("--image-size", type=int, default=32)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], help="by default the device's")
    parser.add_argument(
        "--compile", action=argparse.BooleanOptionalAction, help="PyTorch (default: on a GPU)"
    )
    parser.add_argument("--steps", type=int, default=50, help="of the sampler")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--calls", type=int, default=5, help="timed calls a turn")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--channels-last", action="store_true", help="PyTorch's other layout")
    parser.add_argument("--omp-wait-policy", choices=["ACTIVE", "PASSIVE"], help="of PyTorch")
    parser.add_argument("--profile", action="store_true", help="time our U-Net's layers one by one")
    args = parser.parse_args()
    if args.channels % 32:
        parser.error(f"--channels is {args.channels}; diffusers' 32 groups need a multiple of 32.")
    if args.width % args.heads or args.width % 4:
        parser.error(f"--width is {args.width}; it must be a multiple of 4 and of --heads.")
    if args.profile and args.model != "unet":
        parser.error("--profile needs --model unet.")
    return args


if __name__ == "__main__":
    main()
