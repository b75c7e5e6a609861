"""What unCLIP's stages and embeddings know, looked at from outside (Ramesh et al. 2022)."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from diffusion_jax.quantization import PrincipalCodes
from diffusion_jax.systems.unclip import PRIOR, Prompts, Unclip, best_of, unit
from diffusion_jax.types import Index, Key


def reconstructions(
    codes: PrincipalCodes, z: Float[Array, "b d"], counts: Sequence[int]
) -> Float[Array, "b n d"]:
    """Embeddings from their first components alone, of length 1, for `Unclip.decode` (figure 7).

    Args:
        codes: fitted to embeddings, with as many components as the largest count.
        z: embeddings.
        counts: numbers of components.

    Raises:
        ValueError: a count that isn't from 1 to the number of components.
    """
    a = codes.components(z)
    if not all(1 <= count <= a.shape[1] for count in counts):
        raise ValueError(f"counts are {list(counts)}; there are {a.shape[1]} components.")
    return jnp.stack([unit(codes.from_components(a[:, :count])) for count in counts], axis=1)


def ablation(
    unclip: Unclip, key: Key, told: Prompts, index: Index
) -> dict[str, Float[Array, "b h w c"]]:
    """Pictures of texts by each way that a decoder can be told of them, from one noise (figure 8).

    "text" is the text alone, "text embedding" z_t in place of z_i, and "prior" the prior's z_i,
    both beside the text.

    Raises:
        ValueError: there is no prior.
    """
    if unclip.prior is None:
        raise ValueError("the ablation of conditions needs a prior.")
    z = {
        "text": jnp.zeros_like(told.embedding),
        "text embedding": told.embedding,
        "prior": best_of(jax.random.fold_in(key, PRIOR), unclip.prior, told, index),
    }
    return {name: unclip.decode(key, one, index, told.tokens) for name, one in z.items()}


def attacked(
    pictures: Float[Array, "b d"], texts: Float[Array, "b n d"], scale: float = 100.0
) -> Float[Array, "b n"]:
    """What a CLIP holds pictures for, of these texts; for the typographic attack (figure 6).

        softmax over n of scale z . z_t

    Args:
        pictures: z of pictures with a word written on them, of length 1.
        texts: z_t of what each shows and of what is written, of length 1.
        scale: CLIP's, exp of its learned logarithm.
    """
    return jax.nn.softmax(scale * jnp.einsum("bd,bnd->bn", pictures, texts), axis=-1)


def relations(first: str, second: str) -> dict[str, str]:
    """Captions that differ in who is where or has which colour alone, for binding (figure 14).

    >>> relations("a red cube", "a blue ball")["exchanged"]
    'a blue ball above a red cube'

    Args:
        first, second: objects, "a COLOUR SHAPE".
    """
    a, b = first.split(), second.split()
    swapped = " ".join([*a[:-2], b[-2], a[-1]]), " ".join([*b[:-2], a[-2], b[-1]])
    return {
        "asked": f"{first} above {second}",
        "exchanged": f"{second} above {first}",
        "colours": f"{swapped[0]} above {swapped[1]}",
    }
