"""What the fields of transformers' JSON files may hold, and the sentence where they don't."""

import math
from collections.abc import Mapping
from typing import Any

CONFIG, PICTURES = "config.json", "preprocessor_config.json"

# field -> type, least, most. The most is far beyond any CLIP: it keeps a wrong number from costing
# hours or all memory before arrays are compared.
FIELDS: Mapping[str, tuple[type, float, float]] = {
    "hidden_size": (int, 1, 2**20),
    "intermediate_size": (int, 1, 2**20),
    "projection_dim": (int, 1, 2**20),
    "num_hidden_layers": (int, 1, 2**12),
    "num_attention_heads": (int, 1, 2**12),
    "max_position_embeddings": (int, 1, 2**20),
    "vocab_size": (int, 1, 2**24),
    "eos_token_id": (int, 0, 2**24),
    "num_channels": (int, 1, 2**12),
    "image_size": (int, 1, 2**14),
    "patch_size": (int, 1, 2**14),
    "layer_norm_eps": (float, 0, 1),
}


def number(name: str, value: Any) -> Any:
    """The value of a field of the table.

    Raises:
        ValueError: it is of another type, or out of range; true and false are no numbers.
    """
    kind, least, most = FIELDS[name]
    if type(value) not in (kind, int) or not least <= value <= most:
        wanted = "an integer" if kind is int else "a number"
        raise _wrong(name, value, f"{wanted} from {least} to {most}")
    return value


def section(config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """A config in a config; empty where there is none.

    Raises:
        ValueError: it is no object.
    """
    value = config.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise _wrong(name, value, "an object")
    return value


def listed(config: Mapping[str, Any], name: str) -> list[str]:
    """A list of names; empty where there is none.

    Raises:
        ValueError: it is something else.
    """
    value = config.get(name)
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise _wrong(name, value, "a list of names")
    return value


def per_channel(
    config: Mapping[str, Any], name: str, *, above: float = -math.inf
) -> tuple[float, ...]:
    """A number for each channel, of preprocessor_config.json.

    Raises:
        ValueError: it is something else, or one of them isn't finite and above the bound.
    """
    value = config[name]
    if not isinstance(value, list) or not all(
        type(each) in (int, float) and above < each < math.inf for each in value
    ):
        bound = "" if above == -math.inf else f" above {above:g}"
        raise _wrong(name, value, f"a list of finite numbers{bound}", PICTURES)
    return tuple(map(float, value))


def _wrong(name: str, value: Any, wanted: str, file: str = CONFIG) -> ValueError:
    return ValueError(f"{name} is {value!r:.60} in {file}; it must be {wanted}.")
