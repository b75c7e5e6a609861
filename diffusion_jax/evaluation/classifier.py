"""A small convolutional classifier: a judge of pictures, and a space for Fréchet distances.

A judge is trained on real training pictures alone, knows nothing of the model it judges, and
reports its own accuracy on real test pictures: the rate at which it confirms a requested class
means little above that ceiling. Its penultimate layer is the feature space of the Fréchet distance
for data that Inception never saw.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, Integer

from diffusion_jax.data.augment import Augment, example_keys
from diffusion_jax.evaluation.frechet import FeatureSpace
from diffusion_jax.evaluation.inputs import Images, Labels, agreement, checked_labels, to_levels
from diffusion_jax.types import Key

FORMAT = "diffusion_jax classifier 1"


def _he_uniform(key: Key, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
    """Variance 2 / fan_in (He et al. 2015); drawn flat: 3 to 10 times quicker to compile on CPU."""
    limit = math.sqrt(6 / math.prod(shape[:-1]))
    return jax.random.uniform(key, (math.prod(shape),), dtype, -limit, limit).reshape(shape)


class ConvClassifier(nn.Module):
    """A small convolutional classifier: three convolutions, a feature layer, a linear read-out.

    Attributes:
      classes: number of classes.
      features: dimensions of the penultimate layer, the feature space of the Fréchet distance.
      width: channels of the first convolution; the next have two and four times as many.
      dropout: share of the penultimate activations dropped in training.
    """

    classes: int
    features: int = 64
    width: int = 32
    dropout: float = 0.2

    @nn.compact
    def __call__(
        self, x: Float[Array, "n h w c"], *, train: bool = False
    ) -> tuple[Float[Array, "n classes"], Float[Array, "n features"]]:
        """Pictures in [-1, 1] -> (logits, features). In training, needs a `dropout` key."""
        # Strides rather than max pooling, whose gradient is slow on a CPU.
        x = nn.relu(nn.Conv(self.width, (5, 5), strides=2, kernel_init=_he_uniform)(x))
        x = nn.relu(nn.Conv(2 * self.width, (3, 3), strides=2, kernel_init=_he_uniform)(x))
        x = nn.relu(nn.Conv(4 * self.width, (3, 3), kernel_init=_he_uniform)(x))
        x = x.reshape(x.shape[0], -1)
        features = nn.gelu(nn.Dense(self.features, kernel_init=_he_uniform)(x))
        kept = nn.Dropout(self.dropout, deterministic=not train)(features)
        return nn.Dense(self.classes, kernel_init=nn.initializers.zeros)(kept), features


@partial(jax.jit, static_argnums=0)
def _forward(
    module: ConvClassifier, params: Any, levels: Integer[Array, "n h w c"]
) -> tuple[Float[Array, "n classes"], Float[Array, "n features"]]:
    outputs: Any = module.apply({"params": params}, _network_input(levels))
    return outputs


def _network_input(levels: Integer[Array | np.ndarray, "n h w c"]) -> Float[Array, "n h w c"]:
    return jnp.asarray(levels, jnp.float32) / 127.5 - 1


@dataclass(frozen=True, eq=False)
class Classifier:
    """A trained `ConvClassifier`.

    Its methods take pictures `[n, h, w, c]`, uint8 or floats in [-1, 1], and round them alike.

    Attributes:
      module: the network.
      params: its parameters.
      shape: `(h, w, c)` of the pictures it was trained on; others are refused.
    """

    module: ConvClassifier
    params: Any
    shape: tuple[int, int, int]

    def predict(self, images: Images) -> Int[np.ndarray, " n"]:
        """The most probable class of each picture."""
        return self._outputs(images)[0].argmax(axis=-1).astype(np.int32)

    def probabilities(self, images: Images) -> Float[np.ndarray, "n classes"]:
        """p(class | picture), rows summing to one: what an inception score is made of."""
        return np.asarray(jax.nn.softmax(self._outputs(images)[0], axis=-1))

    def features(self, images: Images) -> Float[np.ndarray, "n features"]:
        """Activations of the penultimate layer."""
        return self._outputs(images)[1]

    def accuracy(self, images: Images, labels: Labels) -> float:
        """Share of pictures, in [0, 1], whose predicted class is the label."""
        return agreement(self.predict(images), labels)

    def feature_space(self, name: str) -> FeatureSpace:
        """The protocol of Fréchet distances in these features, with the weights' fingerprint."""
        digest = hashlib.sha256(json.dumps(_module_fields(self.module)).encode())
        for path, leaf in sorted(_flatten(self.params).items()):
            digest.update(path.encode() + leaf.tobytes())
        return FeatureSpace(
            name, self.module.features, (-1.0, 1.0), weights=digest.hexdigest()[:16]
        )

    def _outputs(self, images: Images) -> tuple[np.ndarray, np.ndarray]:
        levels = to_levels(images)
        if levels.shape[1:] != self.shape or not len(levels):
            wanted = f"one or more pictures of shape {self.shape}"
            raise ValueError(f"this classifier reads {wanted}, got {levels.shape}")
        chunk = 512  # padded: one compilation, and results don't depend on how many are given
        outputs = []
        for start in range(0, len(levels), chunk):
            part = levels[start : start + chunk]
            padded = np.concatenate([part, np.zeros((chunk - len(part), *self.shape), np.uint8)])
            found = _forward(self.module, self.params, jnp.asarray(padded))
            outputs.append([np.asarray(out)[: len(part)] for out in found])
        logits, features = zip(*outputs, strict=True)
        return np.concatenate(logits), np.concatenate(features)


def _learning_rates(peak: float, steps: int) -> np.ndarray:
    """A linear warm-up over a fifth of the steps, then a cosine down to zero."""
    done = np.arange(1, steps + 1) / steps
    rates = peak * np.minimum(done / 0.2, 0.5 + 0.5 * np.cos(np.pi * (done - 0.2) / 0.8))
    return rates.astype(np.float32)


@partial(jax.jit, static_argnums=0, donate_argnums=(1, 2))
def _update(
    module: ConvClassifier,
    params: Any,
    moments: Any,
    key: Key,
    step: Any,
    rate: Any,
    weight_decay: Any,
    levels: Integer[Array | np.ndarray, "n h w c"],
    labels: Integer[Array | np.ndarray, " n"],
) -> tuple[Any, Any, Float[Array, ""]]:
    """AdamW (Loshchilov & Hutter 2019); only another network, batch or shape compiles it anew."""
    rngs = {"dropout": jax.random.fold_in(key, step)}

    def loss(params: Any) -> Float[Array, ""]:
        x = _network_input(levels)
        logits: Any = module.apply({"params": params}, x, train=True, rngs=rngs)
        return optax.softmax_cross_entropy_with_integer_labels(logits[0], labels).mean()

    value, gradient = jax.value_and_grad(loss)(params)
    direction, moments = optax.scale_by_adam().update(gradient, moments)
    params = jax.tree.map(lambda p, d: p - rate * (d + weight_decay * p), params, direction)
    return params, moments, value


def train_classifier(
    key: Key,
    images: Images,
    labels: Labels,
    *,
    classes: int,
    epochs: int = 10,
    batch_size: int = 128,
    learning_rate: float = 2e-3,
    weight_decay: float = 1e-2,
    augment: Augment | None = None,
    module: ConvClassifier | None = None,
    report: Callable[[int, int, float], None] | None = None,
) -> Classifier:
    """Train a classifier on real pictures; the key decides everything.

    Cross-entropy and AdamW, with a learning rate that warms up and falls to zero as a cosine.

    Args:
      key: typed; the same key and data give the same parameters, bit for bit, on one machine.
      images: `[n, h, w, c]`, uint8 or floats in [-1, 1].
      labels: `[n]`, in 0..classes - 1.
      classes: number of classes.
      epochs: passes over the data; every pass drops the remainder of its own shuffle.
      augment: on the 8-bit pictures of a batch, such as `diffusion_jax.data.flip()`.
      module: another width or feature size than the default `ConvClassifier(classes)`.
      report: called as `report(epoch, epochs, mean_loss)` after every pass.

    Raises:
      ValueError: labels out of range, another number of labels than of images, no images, or a
        module for another number of classes.
      FloatingPointError: the loss of an epoch was not finite.
    """
    levels, targets = to_levels(images), checked_labels(labels, len(images), classes)
    module = module or ConvClassifier(classes)
    if module.classes != classes:
        raise ValueError(f"the module has {module.classes} classes, but classes is {classes}")
    batch_size = min(batch_size, len(levels))
    if not batch_size or epochs < 1:
        raise ValueError(f"nothing to train on: {len(levels)} images, {epochs} epochs")
    per_epoch = len(levels) // batch_size
    init_key, order_key, augment_key, dropout_key = jax.random.split(key, 4)
    augment_seed = int(jax.random.bits(augment_key))
    shape = levels.shape[1:]
    params = module.init(init_key, jnp.zeros((1, *shape)))["params"]
    state = optax.scale_by_adam().init(params)
    rates = _learning_rates(learning_rate, epochs * per_epoch)
    for epoch in range(epochs):
        epoch_key = jax.random.fold_in(order_key, epoch)
        order = np.asarray(jax.random.permutation(epoch_key, len(levels)))
        losses = []
        for i in range(per_epoch):
            rows = order[i * batch_size : (i + 1) * batch_size]
            batch = levels[rows]
            if augment is not None:
                batch = augment(batch, example_keys(augment_seed, epoch * len(levels) + rows))
            step = epoch * per_epoch + i
            settings = dropout_key, step, rates[step], weight_decay
            params, state, value = _update(module, params, state, *settings, batch, targets[rows])
            losses.append(value)
        mean_loss = float(np.mean(jax.device_get(losses)))
        if not np.isfinite(mean_loss):
            raise FloatingPointError(
                f"the classifier's loss is {mean_loss} in epoch {epoch + 1} of {epochs}; "
                "lower the learning rate"
            )
        if report:
            report(epoch + 1, epochs, mean_loss)
    return Classifier(module, params, shape)


def _flatten(params: Any) -> dict[str, np.ndarray]:
    """Parameters by their path, "Conv_0/kernel"."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return {"/".join(str(part.key) for part in path): np.asarray(leaf) for path, leaf in leaves}


def save_classifier(path: str | os.PathLike[str], classifier: Classifier) -> None:
    """Write a classifier to one `.npz` file; a reader sees the old file or the whole new one."""
    path = Path(path)
    network = {"module": _module_fields(classifier.module), "shape": classifier.shape}
    header = np.array(json.dumps({"format": FORMAT} | network))
    arrays = {"header": header, **_flatten(classifier.params)}
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".partial")
    try:
        with os.fdopen(handle, "wb") as file:
            np.savez(file, allow_pickle=False, **arrays)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def load_classifier(path: str | os.PathLike[str]) -> Classifier:
    """Read what `save_classifier` wrote; nothing is unpickled.

    Raises:
      ValueError: not such a file, or parameters that don't fit the network it names.
    """
    with np.load(path, allow_pickle=False) as file:
        arrays = dict(file)
    header = json.loads(str(arrays.pop("header", "{}")))
    if header.get("format") != FORMAT:
        raise ValueError(
            f"{path} is not a classifier file: its format is {header.get('format')!r}, "
            f"expected {FORMAT!r}"
        )
    module, shape = ConvClassifier(**header["module"]), tuple(header["shape"])
    expected = jax.eval_shape(lambda: module.init(jax.random.key(0), jnp.zeros((1, *shape))))
    leaves, tree = jax.tree_util.tree_flatten_with_path(expected["params"])
    wanted = {"/".join(str(part.key) for part in place): leaf for place, leaf in leaves}
    found = {name: (array.shape, array.dtype) for name, array in arrays.items()}
    if found != {name: (leaf.shape, leaf.dtype) for name, leaf in wanted.items()}:
        wrong = sorted(set(found) ^ set(wanted)) or sorted(
            n for n in wanted if found[n] != (wanted[n].shape, wanted[n].dtype)
        )
        raise ValueError(f"{path} holds other parameters than its network has: {', '.join(wrong)}")
    params = jax.tree.unflatten(tree, [jnp.asarray(arrays[name]) for name in wanted])
    return Classifier(module, params, shape)


def _module_fields(module: ConvClassifier) -> dict[str, Any]:
    return {name: getattr(module, name) for name in ("classes", "features", "width", "dropout")}
