"""The classification loss: which class a noisy picture is of.

    L = E_{x_0, c, noise, t} -log p(c | x_t, t),  x_t = corrupt(x_0, noise, t)              (1)

Its optimum is the posterior of the class, whose gradient in x_t is what classifier guidance adds
to the score.

Source: Dhariwal & Nichol 2021 (arXiv:2105.05233), section 4.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from diffusion_jax.losses.denoising import Conditioning, unconditional
from diffusion_jax.random import white_noise
from diffusion_jax.timesteps import Times, Uniform
from diffusion_jax.types import Apply, Batch, Extra, Key, Loss, Metrics, Params, Process, Time


def cross_entropy(logits: Float[Array, "b classes"], label: Int[Array, " b"]) -> Float[Array, " b"]:
    """-log softmax(logits)[label] in nats; a label of no class gives NaN, which stops training."""
    classes = logits.shape[1]
    label = jnp.where(label < 0, classes, label)  # or -1 would be the last class
    log_p = jax.nn.log_softmax(logits.astype(jnp.float32))
    return -jnp.take_along_axis(log_p, label[:, None], axis=1, mode="fill")[:, 0]


def classification_loss(
    apply: Apply,
    process: Process,
    *,
    times: Times = Uniform(),
    condition: Conditioning = unconditional,
) -> Loss:
    """The loss of equation (1), for one batch.

    Args:
        apply: (params, x, t, condition, *, key=None) -> logits [b classes]; the key is for
            dropout.
        process: corrupts: any, with or without scales.
        times: draws t for each example.
        condition: (key, index, batch) -> what the classifier may know beside x.

    Returns:
        loss(params, extra, key, batch) -> (scalar, ({"loss", "accuracy", ...}, extra)). The batch
        has "image" [b h w c] in [-1, 1] and "label" [b]. Beside the whole accuracy there are
        those of three thirds of t, "accuracy_low_noise", "..._middle_noise" and
        "..._high_noise"; a third without examples repeats the whole. Example i draws from keys
        folded with i.

    Raises:
        ValueError: a batch without labels, or logits of another shape.
    """

    def loss(params: Params, extra: Extra, key: Key, batch: Batch):
        if "label" not in batch:
            raise ValueError(
                f'classification_loss needs batch["label"]; the batch has {sorted(batch)}.'
            )
        key_time, key_noise, key_condition, key_network = jax.random.split(key, 4)
        x0 = process.encode(batch["image"])
        label = batch["label"]
        index = jnp.arange(x0.shape[0])
        t = times(key_time, index, x0.shape[0])
        x = process.corrupt(x0, white_noise(key_noise, index, x0), t)
        c = condition(key_condition, index, batch)
        logits = apply(params, process.decode(x), t, c, key=key_network)
        if logits.ndim != 2 or logits.shape[0] != x0.shape[0]:
            raise ValueError(
                f"the classifier's answer has shape {logits.shape}; "
                f"classification_loss needs logits [{x0.shape[0]}, classes]."
            )
        value = jnp.mean(cross_entropy(logits, label))
        metrics: Metrics = {"loss": value, **_accuracies(logits.argmax(1) == label, t)}
        return value, (metrics, extra)

    return loss


def _accuracies(right: Bool[Array, " b"], t: Time) -> dict[str, Any]:
    """The share that is right, of all and of each third of t."""
    whole = jnp.mean(right.astype(jnp.float32))
    third = jnp.clip(jnp.floor(3.0 * t), 0, 2)
    found = {"accuracy": whole}
    for i, name in enumerate(("low", "middle", "high")):
        here = third == i
        share = jnp.sum(right & here) / jnp.maximum(jnp.sum(here), 1)
        found[f"accuracy_{name}_noise"] = jnp.where(jnp.any(here), share, whole)
    return found
