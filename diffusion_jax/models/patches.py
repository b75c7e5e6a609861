"""Pictures as patches, and networks that see each patch as a pixel of a smaller picture.

Much of a U-Net's time on small computers goes into its first level, of many pixels and few
channels; with patches of 2x2 as pixels there are a quarter as many.

Source: Shi et al. 2016 (arXiv:1609.05158), the sub-pixel convolution.
"""

import flax.linen as nn
from jaxtyping import Array, Float

from diffusion_jax.types import Condition


def cut_patches(x: Float[Array, "b h w c"], patch: int) -> Float[Array, "b n d"]:
    """Patches row by row, each flattened: [b (h/patch)(w/patch) patch*patch*c]."""
    b, h, w, c = x.shape
    x = x.reshape(b, h // patch, patch, w // patch, patch, c).swapaxes(2, 3)
    return x.reshape(b, (h // patch) * (w // patch), patch * patch * c)


def join_patches(y: Float[Array, "b rows columns p q c"]) -> Float[Array, "b h w c"]:
    """The picture of these patches."""
    b, rows, columns, p, q, c = y.shape
    return y.swapaxes(2, 3).reshape(b, rows * p, columns * q, c)


class Patched(nn.Module):
    """(x [b h w c], t, condition) -> the answer of a network that sees [b h/patch w/patch d].

    `condition.image`, of x's size, is cut too.

    Attributes:
        network: called as (x, t, condition); its answer has patch * patch times the channels.
        patch: height and width of what becomes a pixel.

    Raises:
        ValueError: height or width isn't a multiple of the patch.
    """

    network: nn.Module
    patch: int = 2

    def __call__(self, x: Array, t: Array, condition: Condition = Condition()) -> Array:
        b, h, w, c = x.shape
        p = self.patch
        if h % p or w % p:
            raise ValueError(f"pictures of {h}x{w} can't be cut into patches of {p}x{p}.")

        def cut(image: Array) -> Array:
            return cut_patches(image, p).reshape(b, h // p, w // p, -1)

        if condition.image is not None:
            condition = condition._replace(image=cut(condition.image))
        y = self.network(cut(x), t, condition)
        return join_patches(y.reshape(b, h // p, w // p, p, p, c))
