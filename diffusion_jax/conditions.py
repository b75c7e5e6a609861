"""What happens to conditions on their way into a network."""

import jax
import jax.numpy as jnp
import numpy as np

from diffusion_jax.checks import check_between, check_index
from diffusion_jax.processes import expand
from diffusion_jax.random import bernoulli, example_keys
from diffusion_jax.types import Condition, Index, Key, Scalar


def drop_condition(
    key: Key, index: Index, condition: Condition, null: Condition, probability: Scalar | Condition
) -> Condition:
    """Each example's condition replaced by null with this probability, whole or by field.

    Args:
        key: the step's key; example i draws from fold_in(key, index[i]).
        index: numbers of the examples in the global batch [b].
        condition: fields [b ...].
        null: the same fields, [b ...] or [1 ...].
        probability: in [0, 1], of the whole condition; or of each field by itself, as in
            Condition(vector=0.1, tokens=0.5), where a field without one is never dropped and
            the mask goes with its tokens.

    Raises:
        ValueError: condition and null don't have the same fields and shapes, the index isn't
            [b], or there is a probability out of [0, 1], for a field that the condition hasn't,
            or for the mask.

    Source: Ho & Salimans 2022 (arXiv:2207.12598), Algorithm 1, line 3.
    """
    check_same_fields(condition, null)
    for value in jax.tree.leaves(condition):
        check_index(index, value.shape[0])
    for each in jax.tree.leaves(probability):
        check_between("the probability of dropping a condition", each, 0.0, 1.0)
    keys = example_keys(key, index)
    if not isinstance(probability, Condition):
        return _replaced(condition, null, Condition(*[bernoulli(keys, probability)] * 4))
    unknown = _fields(probability) - (_fields(condition) - {"mask"})
    if unknown:
        raise ValueError(
            f"there are probabilities for {sorted(unknown)}, but the fields that can be dropped "
            f"are {sorted(_fields(condition) - {'mask'})}; the mask goes with its tokens."
        )
    drops = [
        None if p is None else bernoulli(jax.vmap(jax.random.fold_in, (0, None))(keys, i), p)
        for i, p in enumerate(probability)
    ]
    drop = Condition(*drops)
    return _replaced(condition, null, drop._replace(mask=drop.tokens))


def _replaced(condition: Condition, null: Condition, drop: Condition) -> Condition:
    return Condition(
        *(
            c if c is None or n is None or d is None else jnp.where(expand(d, c), n, c)
            for c, n, d in zip(condition, null, drop, strict=True)
        )
    )


def _fields(condition: Condition) -> set[str]:
    return {name for name, value in condition._asdict().items() if value is not None}


def check_same_fields(condition: Condition, null: Condition) -> None:
    """Raises ValueError unless both have the same fields, those of null [b ...] or [1 ...]."""
    have, want = _fields(condition), _fields(null)
    if have != want:
        raise ValueError(
            f"the condition has the fields {sorted(have)} and its null {sorted(want)}; "
            "they must have the same."
        )
    for name in have:
        shape, other = np.shape(getattr(condition, name)), np.shape(getattr(null, name))
        if other not in (shape, (1, *shape[1:])):
            raise ValueError(
                f"condition.{name} has shape {shape} and its null {other}; they must be equal, or "
                "null's batch 1."
            )
