"""Networks that answer with what an enlarged picture lacks."""

import flax.linen as nn
from jaxtyping import Array, Float

from diffusion_jax.types import Condition


class Refined(nn.Module):
    """(x [b h w c], t, condition) -> condition.image + network(x, t, condition), for `X0`.

    A network that starts at zero starts at the enlarged picture, and where that is right already,
    as in plain backgrounds, there is nothing to learn.

    Attributes:
        network: called as (x, t, condition).

    Raises:
        ValueError: there is no `condition.image`, or one of another shape than x.
    """

    network: nn.Module

    def __call__(
        self, x: Float[Array, "b h w c"], t: Array, condition: Condition = Condition()
    ) -> Float[Array, "b h w c"]:
        image = condition.image
        if image is None or image.shape != x.shape:
            found = "no picture" if image is None else f"one of {image.shape}"
            raise ValueError(f"pictures of {x.shape} are refined from one such, and not {found}.")
        return image + self.network(x, t, condition)
