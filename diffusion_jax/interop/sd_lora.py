"""Low-rank updates of Stable Diffusion, merged into its parameters.

    W' = W + scale (alpha / r) B A,   A [r, in], B [out, r]                                     (1)

alpha is r where a file doesn't say it. Convolutions are matrices [out, in h w].

Source: Hu et al. 2021, LoRA (arXiv:2106.09685), section 4.1.
"""

import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from diffusion_jax.interop.clip_layouts import transformers_rows
from diffusion_jax.interop.layouts import FLOATS, Row, first_of, flat, nested, their_shapes
from diffusion_jax.interop.safetensors import Tensors, open_tensors, read_json
from diffusion_jax.interop.sd_layouts import unet_rows
from diffusion_jax.interop.sd_original_layouts import unet_name
from diffusion_jax.interop.sd_parts import Part
from diffusion_jax.interop.stable_diffusion import TEXTS, StableDiffusion
from diffusion_jax.types import Params

# How names end: in peft's and diffusers' files of several years, and in kohya's.
FACTORS = (
    (re.compile(r"(.+)\.lora_(A|B)(?:\.\w+)?\.weight"), {"A": "down", "B": "up"}),
    (re.compile(r"(.+)\.lora(?:_linear_layer)?[._](down|up)\.weight"), None),
    (re.compile(r"(.+?)(?:\.processor)?\.(to_\w+)_lora\.(down|up)\.weight"), None),
)
ALPHA = re.compile(r"(.+)\.alpha")
PEFT = "base_model.model."
METADATA, ADAPTER = "lora_adapter_metadata", "adapter_config.json"


class Target(NamedTuple):
    """A layer that may be updated.

    Attributes:
        part: "unet", "text_encoder" or "text_encoder_2".
        path: of its kernel in our tree.
        layer: of a stack; None is no stack.
        row: of the table, whose form it has.
        shape: of the weight in diffusers' layout.
    """

    part: str
    path: str
    layer: int | None
    row: Row
    shape: tuple[int, ...]


def merge_lora(
    system: StableDiffusion, file: str | os.PathLike[str], *, scale: float = 1.0
) -> StableDiffusion:
    """The system with equation (1) of each layer that the file has; merging -scale undoes it.

    Args:
        system: whose U-Net and text encoders are updated.
        file: safetensors with the names of diffusers and peft ("unet.down_blocks...lora_A.weight",
            "...lora.down.weight", "...processor.to_q_lora.down.weight") or of kohya
            ("lora_unet_down_blocks_...lora_down.weight", "lora_te1_...").
        scale: how much of it.

    Raises:
        ValueError: layers that the system doesn't have, arrays that are no factors of a low-rank
            update, or of other shapes: the first of all.
        FileNotFoundError: no such file.
    """
    targets = dict(_targets(system))
    with open_tensors(Path(file)) as tensors:
        layers, problems = _layers(tensors)
        updates: list[tuple[Target, dict[str, str]]] = []
        for name, factors in layers.items():
            target = targets.get(name.removeprefix(PEFT))
            problem = (
                "has no counterpart here" if target is None else _misfit(tensors, factors, target)
            )
            if problem:
                problems.append(f"{name} {problem}")
            elif target is not None:
                updates.append((target, factors))
        if problems or not updates:
            told = first_of(problems or ["it has no layers"])
            raise ValueError(f"{file} can't be merged, in {len(problems)} places:{told}")
        changed: dict[str, dict[str, np.ndarray]] = {part: {} for part in ("unet", *TEXTS)}
        parts = _parts(system)
        alphas = _alphas(tensors)
        leaves = {name: flat(part.params) for name, part in parts.items()}
        for target, factors in updates:
            down, up = (np.asarray(tensors.read(factors[f]), np.float32) for f in ("down", "up"))
            rank = len(down)
            alpha = alphas.get(target.part, alphas.get("", rank))
            if "alpha" in factors:
                alpha = tensors.read(factors["alpha"]).item()
            product = up.reshape(len(up), rank) @ down.reshape(rank, -1)
            update = target.row.form.ours((scale * alpha / rank * product).reshape(target.shape))
            known = changed[target.part]
            if target.path not in known:
                known[target.path] = np.array(leaves[target.part][target.path], np.float32)
            weight = known[target.path]
            weight[... if target.layer is None else target.layer] += update
    merged = {
        name: part._replace(params=_replaced(part.params, changed[name]))
        for name, part in parts.items()
    }
    texts = tuple(merged[name] for name in system.text_names)
    return system._replace(unet=merged["unet"], texts=texts)


def _replaced(params: Params, changed: Mapping[str, np.ndarray]) -> Params:
    leaves = flat(params)
    new = {path: jnp.asarray(x, leaves[path].dtype) for path, x in changed.items()}
    return nested({**leaves, **new})


def _parts(system: StableDiffusion) -> dict[str, Part]:
    return {"unet": system.unet} | dict(zip(system.text_names, system.texts, strict=True))


def _targets(system: StableDiffusion) -> Iterator[tuple[str, Target]]:
    """Each layer under every name that files may have for it."""
    for part, (module, params, config) in _parts(system).items():
        shapes = {path: tuple(leaf.shape) for path, leaf in flat(params).items()}
        if part == "unet":
            linear = bool(config.get("use_linear_projection", False))
            rows = unet_rows(module, linear_projection=linear)
        else:
            rows = transformers_rows(module, shapes)
        rows = [row for row in rows if row.ours[0].endswith("/kernel")]
        weights = their_shapes(rows, shapes)
        for row in rows:
            for layer, weight in enumerate(row.names()):
                name = weight.removesuffix(".weight")
                where = layer if row.depth else None
                target = Target(part, row.ours[0], where, row, weights[weight])
                names = [f"{part}.{name}", f"{_kohya(part)}{name.replace('.', '_')}"]
                if part == "unet":
                    original = unet_name(weight, module).removesuffix(".weight")
                    names += [name, f"{_kohya(part)}{original.replace('.', '_')}"]
                else:
                    # transformers has called it so since its version 5
                    names.append(f"{part}.{name.removeprefix('text_model.')}")
                if part == "text_encoder":
                    names.append(f"lora_te_{name.replace('.', '_')}")
                for each in names:
                    yield each, target


def _kohya(part: str) -> str:
    return {"unet": "lora_unet_", TEXTS[0]: "lora_te1_", TEXTS[1]: "lora_te2_"}[part]


def _layers(tensors: Tensors) -> tuple[dict[str, dict[str, str]], list[str]]:
    """layer -> {"down", "up", perhaps "alpha": the array's name}, and what is none of these."""
    layers: dict[str, dict[str, str]] = {}
    problems = []
    for name in tensors.shapes:
        found = _factor(name)
        if found is None:
            problems.append(f"{name} is no factor of a low-rank update that is known here")
        elif found[1] != "alpha" and tensors.dtypes[name] not in FLOATS:
            problems.append(f"{name} has dtype {tensors.dtypes[name]}, and floats are wanted")
        else:
            layers.setdefault(found[0], {})[found[1]] = name
    return layers, problems


def _factor(name: str) -> tuple[str, str] | None:
    """(layer, "down", "up" or "alpha")."""
    for pattern, sides in FACTORS:
        match = pattern.fullmatch(name)
        if match:
            *layer, side = match.groups()
            joined = ".".join(layer)
            joined = re.sub(r"\.self_attn\.to_(\w+)$", r".self_attn.\1_proj", joined)
            joined = re.sub(r"\.to_out$", ".to_out.0", joined)
            return joined, sides[side] if sides else side
    match = ALPHA.fullmatch(name)
    return (match[1], "alpha") if match else None


def _misfit(tensors: Tensors, factors: Mapping[str, str], target: Target) -> str:
    """Why the factors aren't the layer's; "" where they are."""
    lacking = [side for side in ("down", "up") if side not in factors]
    if lacking:
        return f"has no {' and no '.join(lacking)}"
    down, up = (tensors.shapes[factors[side]] for side in ("down", "up"))
    inputs, outputs = int(np.prod(target.shape[1:])), target.shape[0]
    if not down or not up or int(np.prod(down[1:])) != inputs or up[0] != outputs:
        return f"has factors {down} and {up}, and the weight is {target.shape}"
    if int(np.prod(up[1:])) != down[0] or down[0] == 0:
        return f"has factors of different ranks, {down} and {up}"
    if "alpha" in factors and int(np.prod(tensors.shapes[factors["alpha"]])) != 1:
        return f"has an alpha of shape {tensors.shapes[factors['alpha']]}"
    return ""


def _alphas(tensors: Tensors) -> dict[str, Any]:
    """part, or "" for all -> alpha, which diffusers writes beside the arrays, peft in its own file.

    Raises:
        ValueError: options that aren't known here.
        FileNotFoundError: peft's names, without that file.
    """
    if METADATA in tensors.metadata:
        told = json.loads(tensors.metadata[METADATA])
    elif any(name.startswith(PEFT) for name in tensors.shapes):
        beside = read_json(Path(tensors.where).parent / ADAPTER)
        told = {f"{part}.{name}": x for part in ("unet", *TEXTS) for name, x in beside.items()}
    else:
        return {}
    odd = [
        name
        for name, value in told.items()
        if value and name.endswith(("alpha_pattern", "use_rslora", "use_dora", "lora_bias"))
    ]
    if odd:
        raise ValueError(f"{tensors.where} has {', '.join(odd)}, which isn't known here.")
    split = ((*name.rpartition("."), value) for name, value in told.items())
    return {part: value for part, _, last, value in split if last == "lora_alpha"}
