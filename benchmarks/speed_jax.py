"""Our side of `speed.py`: the network with diffusers' parameters, its training step and sampler."""

import os
from argparse import Namespace
from collections.abc import Callable
from multiprocessing.connection import Connection

from benchmarks.sides import serve, stay_on
from benchmarks.speed_inputs import CLASSES, TABLE, inputs


def unet(args: Namespace, dtype):
    """The network, and what makes its parameters of (diffusers' state, our shapes)."""
    from benchmarks.diffusers_unet import from_diffusers
    from diffusion_jax.models import Sinusoidal, UNet

    network = UNet(
        out_channels=3,
        channels=args.channels,
        multipliers=tuple(args.multipliers),
        blocks=args.blocks,
        attention=(args.attention,),
        time_features=Sinusoidal(args.channels),
        epsilon=1e-6,
        dtype=dtype,
    )
    levels = len(args.multipliers)
    return network, lambda state, like: from_diffusers(
        state, like, levels=levels, blocks=args.blocks
    )


def transformer(args: Namespace, dtype):
    """The network, and what makes its parameters of (diffusers' state, our shapes)."""
    from benchmarks.diffusers_dit import from_diffusers
    from diffusion_jax.models import DiT, Sinusoidal

    network = DiT(
        out_channels=3,
        size=args.image_size,
        patch=args.patch,
        width=args.width,
        depth=args.depth,
        heads=args.heads,
        time_features=Sinusoidal(256, shift=1),
        dtype=dtype,
    )
    return network, lambda state, like: from_diffusers(state, like, depth=args.depth)


def jax_worker(connection: Connection, args: Namespace) -> None:
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # PyTorch needs memory too
    from diffusion_jax.training.platform import set_xla_flags

    set_xla_flags()
    stay_on(args.threads)

    import jax
    import jax.numpy as jnp
    import jaxlib
    import numpy as np

    import diffusion_jax as dj
    from benchmarks.layer_times import layer_times, timed
    from benchmarks.peak import peak
    from diffusion_jax.models import from_linen, with_time
    from diffusion_jax.training.flops import count_flops
    from diffusion_jax.training.optimizers import adam
    from diffusion_jax.training.sharding import abstract_like, data_mesh, place
    from diffusion_jax.training.step import init_state, make_step

    on_cpu = jax.default_backend() == "cpu"
    dtype = args.dtype or ("float32" if on_cpu else "bfloat16")
    network, convert = (unet if args.model == "unet" else transformer)(args, jnp.dtype(dtype))
    model = with_time(from_linen(network), dj.table_time(TABLE))
    process, parameterization = dj.Gaussian(dj.LinearBeta(TABLE)), dj.Noise()
    given = {name: jnp.asarray(value) for name, value in inputs(args).items()}
    x, t, pictures = given["x"], (given["index"] + 1) / TABLE, given["pictures"]
    told = dj.Condition()
    if args.model == "dit":
        told = dj.Condition(vector=jax.nn.one_hot(given["label"], CLASSES + 1))
    key, grid = jax.random.key(0), dj.leading(args.steps, TABLE)

    def apply(params, x, t):
        return model.apply(params, x, t, told)

    def draw(params, x, grid):
        denoiser = dj.denoiser_from(lambda x, t: apply(params, x, t), process, parameterization)
        return dj.sample(key, dj.DDIM(), process, dj.clip(denoiser, process), x, grid)

    loss = dj.denoising_loss(
        lambda params, x, t, condition, key: model.apply(params, x, t, told, key=key),
        process,
        parameterization,
        times=dj.Discrete(TABLE),
        weighting=dj.constant,
    )
    optimizer = adam(1e-4)
    forward, sampler = jax.jit(apply), jax.jit(draw)
    mesh = data_mesh(1)
    like = abstract_like(lambda key: init_state(model.init(key, x, t, told), optimizer), key, mesh)
    step = make_step(loss, optimizer, like, ema_decay=0.999)
    held: dict = {}

    def load(state):
        params = convert(state, jax.eval_shape(lambda: model.init(key, x, t, told)))
        held["params"] = jax.tree.map(jnp.asarray, params)
        # The step donates its state, so it gets parameters of its own; they lie as it returns
        # them, or its second call would compile again.
        state = init_state(jax.tree.map(jnp.copy, held["params"]), optimizer)
        held["state"] = place(state, mesh)
        return sum(leaf.size for leaf in jax.tree.leaves(params))

    def run_train():
        held["state"], metrics = step(held["state"], key, {"image": pictures})
        jax.block_until_ready((held["state"], metrics))

    runs: dict[str, Callable] = {
        "forward": lambda: forward(held["params"], x, t).block_until_ready(),
        "train": run_train,
        "sample": lambda: sampler(held["params"], x, grid).block_until_ready(),
    }
    flops: dict[str, Callable] = {
        "forward": lambda: count_flops(forward, like.params, x, t),
        "train": lambda: count_flops(step, like, key, {"image": pictures}),
        "sample": lambda: count_flops(sampler, like.params, x, grid),
    }
    device = jax.devices()[0].device_kind
    serve(
        connection,
        {
            "load": load,
            "on_cpu": lambda: on_cpu,
            "dtype": lambda: dtype,
            "peak": lambda: peak(dtype),
            "flops": lambda task: flops[task](),
            "answer": lambda task: np.asarray(runs[task]()),
            "time": lambda task, calls: timed(runs[task], calls),
            "versions": lambda: f"jax {jax.__version__}, jaxlib {jaxlib.__version__} on {device}",
            "profile": lambda: layer_times(network, held["params"], x, t * TABLE - 1),
        },
    )
