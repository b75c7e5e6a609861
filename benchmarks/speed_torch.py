"""diffusers' side of `speed.py`, on PyTorch: eager or compiled, with autocast on a GPU."""

from argparse import Namespace
from multiprocessing.connection import Connection

from benchmarks.sides import serve, stay_on
from benchmarks.speed_inputs import CLASSES, TABLE, inputs


def unet(args: Namespace):
    """(network, name -> parameter)."""
    from diffusers import UNet2DModel

    attends = [args.image_size // 2**i == args.attention for i in range(len(args.multipliers))]
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
    return network, {k: v.detach().clone().numpy() for k, v in network.named_parameters()}


def transformer(args: Namespace):
    """(network, name -> parameter), every one at random: a fresh one answers zeros."""
    import torch
    from diffusers import DiTTransformer2DModel

    from benchmarks.diffusers_dit import one_embedding, state_of

    network = one_embedding(
        DiTTransformer2DModel(
            num_attention_heads=args.heads,
            attention_head_dim=args.width // args.heads,
            in_channels=3,
            out_channels=3,
            num_layers=args.depth,
            sample_size=args.image_size,
            patch_size=args.patch,
            num_embeds_ada_norm=CLASSES,
            norm_eps=1e-6,
        )
    )
    with torch.no_grad():
        for p in network.parameters():
            z = torch.randn(p.shape)
            p.copy_(z / p[0].numel() ** 0.5 if p.ndim > 1 else 0.1 * z)
    return network, state_of(network)


def torch_worker(connection: Connection, args: Namespace) -> None:
    import torch

    on_cpu = args.on_cpu or not torch.cuda.is_available()
    if on_cpu:
        torch.set_num_threads(args.threads)
    stay_on(args.threads)

    import diffusers
    from diffusers import DDIMScheduler, DDPMScheduler

    from benchmarks.layer_times import timed

    device = torch.device("cpu" if on_cpu else "cuda")
    torch.set_float32_matmul_precision("high")  # TF32, which JAX takes by default too
    torch.manual_seed(0)
    layout = torch.channels_last if args.channels_last else torch.contiguous_format
    # Training changes the network, and the answers must not depend on what was timed before.
    network, start = (unet if args.model == "unet" else transformer)(args)
    network = network.to(device, memory_format=layout)
    called = torch.compile(network) if args.compile else network
    parameters = list(network.parameters())
    average = [p.detach().clone() for p in parameters]
    optimizer = torch.optim.Adam(parameters, lr=1e-4, fused=True)
    corruption, scheduler = DDPMScheduler(TABLE), DDIMScheduler(TABLE)

    def nchw(v):
        v = torch.from_numpy(v).permute(0, 3, 1, 2)
        return v.contiguous(memory_format=layout).to(device)

    given = inputs(args)
    x, pictures = nchw(given["x"]), nchw(given["pictures"])
    index, label = (torch.from_numpy(given[name]).to(device) for name in ("index", "label"))

    def answer(x, t):
        half = args.dtype == "bfloat16"
        with torch.autocast(device.type, torch.bfloat16, enabled=half):
            if args.model == "unet":
                return called(x, t).sample.float()
            return called(x, t.expand(len(x)), label).sample.float()

    def forward():
        network.eval()
        with torch.inference_mode():
            return answer(x, index)

    def sample():
        network.eval()
        scheduler.set_timesteps(args.steps)
        image = x
        with torch.inference_mode():
            for k in scheduler.timesteps.to(device):
                y = answer(image, k)
                image = scheduler.step(y, k, image, use_clipped_model_output=True).prev_sample
        return image

    def train():
        network.train()
        noise = torch.randn_like(pictures)
        k = torch.randint(0, TABLE, (args.batch_size,), device=device)
        y = answer(corruption.add_noise(pictures, noise, k), k)
        torch.nn.functional.mse_loss(y, noise).backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            torch._foreach_lerp_(average, parameters, 1e-3)

    runs = {"forward": forward, "train": train, "sample": sample}

    def run(task):
        result = runs[task]()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return result

    mode = "compiled" if args.compile else "eager"
    serve(
        connection,
        {
            "parameters": lambda: start,
            "answer": lambda task: run(task).permute(0, 2, 3, 1).contiguous().cpu().numpy(),
            "time": lambda task, calls: timed(lambda: run(task), calls),
            "versions": lambda: (
                f"diffusers {diffusers.__version__} on {mode} torch "
                f"{torch.__version__}, {device.type}"
            ),
        },
    )
