"""Emoji from texts, 64x64: a diffusion model of a codec's latents, or of pixels.

    python train.py configs/emoji64_clip.py                            # its words, not its weights
    python train.py configs/kl_emoji64.py --judge runs/emoji64_clip
    python train.py configs/emoji_text.py --codec runs/kl_emoji64 --run-dir runs/emoji_latents
    python train.py configs/emoji_text.py --channels 24 --run-dir runs/emoji_pixels
    python sample.py runs/emoji_latents --prompt "cat face, in noto style"

On a codec's 16x16 latents the U-Net has 48 channels; on pixels, which it sees as 32x32 patches, 24
cost as many operations a step, up to a tenth; the codec's training comes on top. docs/latent.md
compares them after 10,000 steps.
"""

from pathlib import Path

from diffusion_jax import DDIM, Gaussian, Rectified, V
from diffusion_jax.models import (
    Encoded,
    Located,
    Patched,
    TextEncoder,
    Tokens,
    from_linen,
    patches_unet,
    with_time,
)
from diffusion_jax.training.codecs import load_codec
from diffusion_jax.training.embeddings import load_clip_task
from diffusion_jax.training.experiment import Experiment
from diffusion_jax.training.latent_experiment import LatentExperiment
from diffusion_jax.training.latents import CodecRun, latents
from diffusion_jax.training.optimizers import adamw, warmed_up_cosine

SIZE = 64


def recipe(
    clip: Path = Path("runs/emoji64_clip"),
    codec: Path | None = None,
    steps: int = 10_000,
    batch_size: int = 16,
    seed: int = 0,
    learning_rate: float = 1e-3,
    vocabulary: int = 2048,
    length: int = 32,
    channels: int = 48,
    drop_text: float = 0.1,
    ema_decay: float = 0.999,
) -> Experiment:
    """Emoji from texts.

    Args:
        clip: a run of configs/emoji64_clip.py, whose tokens of the texts are taken.
        codec: a run of configs/kl_emoji64.py or configs/vq_emoji64.py; none is a model of pixels.
        steps: training steps.
        batch_size: examples a step, over all devices.
        seed: of parameters, data order and noise.
        learning_rate: of AdamW, after a warm-up of 100 steps; falls to 0 as a cosine.
        vocabulary: of the CLIP's texts.
        length: of the CLIP's texts.
        channels: of the U-Net's first level.
        drop_text: probability that the text is dropped.
        ema_decay: of the averaged parameters.
    """

    def source(split, data_dir):
        pictures = load_clip_task(clip).source(split, data_dir)
        return latents(codec, pictures, data_dir) if codec else pictures

    text = TextEncoder(vocabulary, width=64, layers=2, heads=4, length=length)
    how = dict(
        source=source,
        image_shape=(SIZE, SIZE, 3),
        process=Gaussian(Rectified(shift=2.0)),
        parameterization=V(),
        conditioning=Tokens(vocabulary, length, drop_text),
        tokenizer=lambda data_dir: load_clip_task(clip).tokenizer(data_dir),
        learning_rate=warmed_up_cosine(learning_rate, steps),
        optimizer=adamw,
        batch_size=batch_size,
        steps=steps,
        seed=seed,
        ema_decay=ema_decay,
        sampler=DDIM(eta=1.0),
        guidance=2.0,
    )
    if codec is None:
        pixels = Patched(Located(patches_unet((SIZE // 4, SIZE // 8), channels)))
        return Experiment(**how, model=_model(text, pixels), needs=(clip,))
    shape = load_codec(codec).latent_shape
    unet = patches_unet((shape[0] // 2, shape[0] // 4), channels).clone(out_channels=shape[2])
    return LatentExperiment(
        **how,
        model=_model(text, Located(unet)),
        codec=CodecRun(codec),
        latent_shape=shape,
        needs=(clip, codec),
    )


def _model(text, network):
    return with_time(from_linen(Encoded(text, network)), lambda t: 1000.0 * t)
