"""Training step, forward pass and DDIM sampler of one U-Net: ours and diffusers' on PyTorch.

    python benchmarks/speed.py
    python benchmarks/speed.py --channels 32 --image-size 16 --rounds 1 --steps 2      # a try

Both sides hold the same network with the same parameters, on the same cores, each in a process of
its own (their thread pools would disturb each other), and take turns in one run. A turn warms up
with one call that isn't timed. Times are medians over all rounds.

A training step is forward, backward, gradient clipping, Adam and the average of the parameters;
random times and noise are drawn in it. PyTorch is eager, in its default memory layout; its Adam is
the fused one. `--profile` also says where our gradient's time goes, layer by layer.

Run it on a quiet machine. PyTorch's OpenMP threads spin while they wait for one another, so another
process on their cores makes them many times slower: a tiny training step took 1,900 ms instead of
80 beside a training run, and 80 with `--omp-wait-policy PASSIVE`.
"""

import argparse
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

TABLE = 1000
TASKS = {
    "forward": "forward pass",
    "train": "training step",
    "sample": "DDIM sampler",
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
    ours, theirs = (
        Worker("diffusion_jax", jax_worker, args),
        Worker("diffusers", torch_worker, args),
    )
    try:
        compare(args, ours, theirs)
    finally:
        ours.close()
        theirs.close()


def compare(args, ours: "Worker", theirs: "Worker") -> None:
    """Checks that both sides are one network, times them in turns and prints the table."""
    state = theirs.ask("parameters")
    count = ours.ask("load", state)
    their_count = sum(v.size for v in state.values())
    if count != their_count:
        sys.exit(f"the networks differ: {count:,} parameters, and diffusers' {their_count:,}.")
    errors = []
    for question in ("forward", "sample"):
        a, b = (side.ask("answer", question) for side in (ours, theirs))
        errors.append(float(abs(a - b).max() / abs(b).max()))
    print(
        f"{count:,} parameters; forward passes differ by {errors[0]:.1e} of the largest value, "
        f"{args.steps}-step samples by {errors[1]:.1e}",
        flush=True,
    )
    if errors[0] > 1e-4:
        sys.exit("the networks differ: nothing was timed.")

    times: dict[tuple[str, str], list[float]] = {}
    for number in range(args.rounds):
        for task in TASKS:
            order = (ours, theirs) if number % 2 == 0 else (theirs, ours)
            for side in order:
                calls = 1 if task == "sample" else args.calls
                times.setdefault((task, side.name), []).extend(side.ask("time", task, calls))
        line = "  ".join(
            f"{task} {times[task, ours.name][-1]:.0f} / {times[task, theirs.name][-1]:.0f} ms"
            for task in TASKS
        )
        print(f"round {number + 1} of {args.rounds}: {line}  (ours / diffusers)", flush=True)

    shape = f"{args.image_size}x{args.image_size}x3, batch {args.batch_size}"
    print(f"\n{shape}, {count:,} parameters, {args.threads} threads, float32")
    print(f"{machine()}; {ours.ask('versions')}; {theirs.ask('versions')}\n")
    print(args.note, end="")
    print("| median of all calls | diffusion_jax, ms | diffusers, ms | diffusers / diffusion_jax |")
    print("|---|---|---|---|")
    for task, title in TASKS.items():
        title += f", {args.steps} steps" if task == "sample" else ""
        a, b = (statistics.median(times[task, side.name]) for side in (ours, theirs))
        print(f"| {title} | {a:.1f} | {b:.1f} | {b / a:.2f} |")
    if args.profile:
        print("\n" + ours.ask("profile"))


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--channels", type=int, default=64, help="multiple of 32")
    parser.add_argument("--multipliers", type=int, nargs="+", default=[1, 2, 2])
    parser.add_argument("--blocks", type=int, default=2)
    parser.add_argument("--image-size", type=int, default=32)
    parser.add_argument("--attention", type=int, default=16, help="height with attention")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--steps", type=int, default=50, help="of the sampler")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--calls", type=int, default=5, help="timed calls a turn")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--channels-last", action="store_true", help="PyTorch's other layout")
    parser.add_argument("--omp-wait-policy", choices=["ACTIVE", "PASSIVE"], help="of PyTorch")
    parser.add_argument("--profile", action="store_true", help="time our layers one by one")
    args = parser.parse_args()
    if args.channels % 32:
        parser.error(f"--channels is {args.channels}; diffusers' 32 groups need a multiple of 32.")
    return args


def machine() -> str:
    """The processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(": ")[1] for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def busy_cores(seconds: float = 3.0) -> float:
    """How many cores other programs kept busy for some seconds."""

    def ticks() -> int:
        return sum(int(v) for v in Path("/proc/stat").read_text().split("\n")[0].split()[1:4])

    before = ticks()
    time.sleep(seconds)
    return (ticks() - before) / os.sysconf("SC_CLK_TCK") / seconds


class Worker:
    """A side in a process of its own, that answers one question at a time."""

    def __init__(self, name: str, target: Callable, args: argparse.Namespace):
        self.name = name
        context = get_context("spawn")
        self._connection, other = context.Pipe()
        self._process = context.Process(target=target, args=(other, args), daemon=True)
        self._process.start()
        other.close()

    def ask(self, question: str, *details):
        self._connection.send((question, *details))
        try:
            return self._connection.recv()
        except EOFError:
            sys.exit(f"{self.name} stopped; its error is above.")

    def close(self) -> None:
        self._connection.close()
        self._process.join(timeout=30)


def serve(connection: Connection, answers: dict[str, Callable]) -> None:
    """Answers questions until the other end closes."""
    while True:
        try:
            question, *details = connection.recv()
        except EOFError:
            return
        connection.send(answers[question](*details))


def inputs(args):
    """x, times and pictures for both sides, NHWC."""
    import numpy as np

    rng = np.random.default_rng(0)
    shape = (args.batch_size, args.image_size, args.image_size, 3)
    x = rng.standard_normal(shape, np.float32)
    return x, rng.integers(0, TABLE, args.batch_size), np.clip(0.5 * x, -1, 1)


def jax_worker(connection: Connection, args) -> None:
    from diffusion_jax.training.platform import set_xla_flags

    set_xla_flags()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: args.threads])

    import jax
    import jax.numpy as jnp
    import jaxlib
    import numpy as np

    import diffusion_jax as dj
    from benchmarks.diffusers_unet import from_diffusers
    from benchmarks.layer_times import layer_times, timed
    from diffusion_jax.models import Sinusoidal, UNet, from_linen, with_time
    from diffusion_jax.training.experiment import adam
    from diffusion_jax.training.sharding import data_mesh, replicated
    from diffusion_jax.training.step import init_state, make_step

    network = UNet(
        out_channels=3,
        channels=args.channels,
        multipliers=tuple(args.multipliers),
        blocks=args.blocks,
        attention=(args.attention,),
        time_features=Sinusoidal(args.channels),
        epsilon=1e-6,
    )
    model = with_time(from_linen(network), dj.table_time(TABLE))
    process, parameterization = dj.Gaussian(dj.LinearBeta(TABLE)), dj.Noise()
    x, index, pictures = (jnp.asarray(v) for v in inputs(args))
    t = (index + 1) / TABLE
    key, grid = jax.random.key(0), dj.leading(args.steps, TABLE)

    def apply(params, x, t):
        return model.apply(params, x, t, dj.Condition())

    def draw(params, x, grid):
        denoiser = dj.denoiser_from(lambda x, t: apply(params, x, t), process, parameterization)
        return dj.sample(key, dj.DDIM(), process, dj.clip(denoiser, process), x, grid)

    loss = dj.denoising_loss(
        model.apply, process, parameterization, times=dj.Discrete(TABLE), weighting=dj.constant
    )
    optimizer = adam(1e-4)
    forward, sampler = jax.jit(apply), jax.jit(draw)
    mesh = data_mesh(1)
    step = make_step(loss, optimizer, mesh, ema_decay=0.999)
    held: dict = {}

    def load(state):
        like = jax.eval_shape(lambda: model.init(key, x, t, dj.Condition()))
        params = from_diffusers(state, like, levels=len(args.multipliers), blocks=args.blocks)
        held["params"] = jax.tree.map(jnp.asarray, params)
        # The step donates its state, so it gets parameters of its own; they lie as it returns
        # them, or its second call would compile again.
        state = init_state(jax.tree.map(jnp.copy, held["params"]), optimizer)
        held["state"] = jax.device_put(state, replicated(mesh))
        return sum(leaf.size for leaf in jax.tree.leaves(params))

    def run_train():
        held["state"], metrics = step(held["state"], key, {"image": pictures})
        jax.block_until_ready((held["state"], metrics))

    runs = {
        "forward": lambda: forward(held["params"], x, t).block_until_ready(),
        "train": run_train,
        "sample": lambda: sampler(held["params"], x, grid).block_until_ready(),
    }
    outputs = {
        "forward": lambda: np.asarray(forward(held["params"], x, t)),
        "sample": lambda: np.asarray(sampler(held["params"], x, grid)),
    }
    serve(
        connection,
        {
            "load": load,
            "answer": lambda task: outputs[task](),
            "time": lambda task, calls: timed(runs[task], calls),
            "versions": lambda: f"jax {jax.__version__}, jaxlib {jaxlib.__version__}",
            "profile": lambda: layer_times(network, held["params"], x, t * TABLE - 1),
        },
    )


def torch_worker(connection: Connection, args) -> None:
    import torch

    torch.set_num_threads(args.threads)
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: args.threads])

    import diffusers
    from diffusers import DDIMScheduler, DDPMScheduler, UNet2DModel

    from benchmarks.layer_times import timed

    attends = [args.image_size // 2**i == args.attention for i in range(len(args.multipliers))]
    torch.manual_seed(0)
    network = UNet2DModel(
        sample_size=args.image_size,
        block_out_channels=tuple(m * args.channels for m in args.multipliers),
        down_block_types=tuple("AttnDownBlock2D" if a else "DownBlock2D" for a in attends),
        up_block_types=tuple("AttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attends)),
        layers_per_block=args.blocks,
        attention_head_dim=None,
        downsample_padding=0,
        flip_sin_to_cos=False,
        freq_shift=1,
        norm_eps=1e-6,
    )
    layout = torch.channels_last if args.channels_last else torch.contiguous_format
    network = network.to(memory_format=layout)
    average = [p.detach().clone() for p in network.parameters()]
    # Training changes the network, and the answers must not depend on what was timed before.
    start = {k: v.detach().clone().numpy() for k, v in network.named_parameters()}
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-4, fused=True)
    corruption, scheduler = DDPMScheduler(TABLE), DDIMScheduler(TABLE)

    def nchw(v):
        return torch.from_numpy(v).permute(0, 3, 1, 2).contiguous(memory_format=layout)

    x, index, pictures = inputs(args)
    x, pictures, index = nchw(x), nchw(pictures), torch.from_numpy(index)

    def forward():
        network.eval()
        with torch.inference_mode():
            return network(x, index).sample

    def sample():
        network.eval()
        scheduler.set_timesteps(args.steps)
        image = x
        with torch.inference_mode():
            for k in scheduler.timesteps:
                y = network(image, k).sample
                image = scheduler.step(y, k, image, use_clipped_model_output=True).prev_sample
        return image

    def train():
        network.train()
        noise = torch.randn_like(pictures)
        k = torch.randint(0, TABLE, (args.batch_size,))
        y = network(corruption.add_noise(pictures, noise, k), k).sample
        torch.nn.functional.mse_loss(y, noise).backward()
        parameters = list(network.parameters())
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            torch._foreach_lerp_(average, parameters, 1e-3)

    runs = {"forward": forward, "train": train, "sample": sample}
    serve(
        connection,
        {
            "parameters": lambda: start,
            "answer": lambda task: runs[task]().permute(0, 2, 3, 1).contiguous().numpy(),
            "time": lambda task, calls: timed(runs[task], calls),
            "versions": lambda: f"torch {torch.__version__}, diffusers {diffusers.__version__}",
        },
    )


if __name__ == "__main__":
    main()
