"""Which modules of a model a MokA adapter may wrap, and which media it has placeholders for."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn

from moka_peft.routing.placeholders import KNOWN_KINDS, media_token_ids, placeholders_by_modality

# Small Linears inside decoder layers that steer rather than project: not adapted by default.
INNER_MODELS = ("thinker",)  # the full Qwen Omni models: their own get_decoder is not the text decoder's
STEERING = frozenset(
    "router gate shared_expert_gate altup laurel modality_router per_layer_input_gate per_layer_projection".split()
)


def find_adaptable(model: nn.Module, config: Any) -> set[str]:
    """Names of the Linears inside the text decoder's layers: `target_modules` of `config` matches among these only.

    `target_modules` None becomes the names of all of them except routers and gates; "all-linear": those too.
    Raises ValueError where an entry matches nothing, or only modules outside the text decoder, and where a model
    with media encoders has no text decoder to be found and `target_modules` is no pattern of full names.
    """
    regions = _decoder_regions(model)
    if regions == [""] and _has_encoders(model) and not _is_pattern(config.target_modules):
        raise ValueError(
            f"`model`: the text decoder of {type(model).__name__} could not be told from its media encoders: expected "
            "get_decoder() to return a module with a list of layers. Pass target_modules as a pattern that matches "
            "the full names of the decoder's projections, such as r'decoder\\.layers\\..*\\.(q|v)_proj'."
        )
    linears = {name for name, module in model.named_modules() if _is_linear(module) and not _is_in_adapter(name)}
    inside = {name for name in linears if any(name.startswith(region) for region in regions)}
    _check_entries(config.target_modules, linears, inside)
    if config.target_modules is None:
        inside = {name for name in inside if not STEERING & set(name.split("."))}
        config.target_modules = {name.rsplit(".", 1)[-1] for name in inside}
    elif config.target_modules == "all-linear":
        config.target_modules = {name.rsplit(".", 1)[-1] for name in inside}
    return inside


def expert_parameters(model: nn.Module) -> list[str]:
    """Names of weights [experts, O, I] in the decoder's layers: they are no Linears, so no adapter is put on them."""
    regions = _decoder_regions(model)
    return [
        f"{name}.{key}"
        for name, module in model.named_modules()
        if any(name.startswith(region) for region in regions) and not hasattr(module, "kernel_size")
        for key, parameter in module.named_parameters(recurse=False)
        if parameter.dim() == 3
    ]


def placeholder_modalities(config: Any) -> tuple[str, ...]:
    """("text", ...) and every modality with a placeholder token id on a transformers config.

    Raises ValueError where there is none.
    """
    found = placeholders_by_modality({kind: token for kind, token in media_token_ids(config).items() if token >= 0})
    if not found:
        raise ValueError(
            "`modalities`: no placeholder token found on the model's config (image_token_id, audio_token_id, ...). "
            "Name them: MokaConfig(modalities=('text', 'visual', ...))."
        )
    return ("text", *found)


def _is_linear(module: nn.Module) -> bool:
    base = module.get_base_layer() if isinstance(module, BaseTunerLayer) else module
    return isinstance(base, nn.Linear)


def _is_in_adapter(name: str) -> bool:
    """Whether a module lies inside an adapted layer: its base, or a matrix of an adapter that is there already."""
    return any(part == "base_layer" or part.startswith("moka_") for part in name.split("."))


def _decoder_regions(model: Any) -> list[str]:
    """Name prefixes of the text decoder's layer stacks; [""] for a module that has no decoder to ask for."""
    holder = next((child for name in INNER_MODELS if (child := getattr(model, name, None)) is not None), model)
    decoder = holder.get_decoder() if callable(getattr(holder, "get_decoder", None)) else None
    prefix = next((name for name, module in model.named_modules() if module is decoder), None)
    if decoder is None or prefix is None:
        return [""]
    stacks = [name for name, child in decoder.named_children() if _is_stack(child)]
    start = f"{prefix}." if prefix else ""
    return [f"{start}{name}." for name in stacks] or [start]


def _has_encoders(model: nn.Module) -> bool:
    config = getattr(model, "config", None)
    return any(getattr(config, f"{kind}_config", None) is not None for kind in KNOWN_KINDS)


def _is_pattern(target_modules: Any) -> bool:
    return isinstance(target_modules, str) and target_modules != "all-linear"


def _is_stack(module: nn.Module) -> bool:
    """A list of layers; Gemma 3n also has lists of plain Linears beside its layers."""
    return isinstance(module, nn.ModuleList) and not any(isinstance(child, nn.Linear) for child in module)


def _check_entries(target_modules: Iterable[str] | str | None, linears: set[str], inside: set[str]) -> None:
    if target_modules is None or target_modules == "all-linear":
        if not inside:
            raise ValueError("`target_modules`: the model holds no Linear to adapt. Name the modules to adapt.")
        return
    if isinstance(target_modules, str):
        outside = sorted(name for name in linears - inside if re.fullmatch(target_modules, name))
        if outside:
            raise ValueError(_outside_message(target_modules, outside[0]))
        found = {target_modules: any(re.fullmatch(target_modules, name) for name in inside)}
    else:
        found = {}
        for entry in target_modules:
            found[entry] = any(_ends_with(name, entry) for name in inside)
            outside = sorted(name for name in linears - inside if _ends_with(name, entry))
            if outside and (entry in outside or not found[entry]):
                raise ValueError(_outside_message(entry, outside[0]))
    unmatched = sorted(entry for entry, hit in found.items() if not hit)
    if unmatched:
        known = sorted({name.rsplit(".", 1)[-1] for name in inside})
        raise ValueError(
            f"`target_modules`: {unmatched} match no Linear of the text decoder. It has {known}. "
            "Leave target_modules out to adapt all of its projections."
        )


def _ends_with(name: str, entry: str) -> bool:
    return name == entry or name.endswith(f".{entry}")


def _outside_message(entry: str, name: str) -> str:
    return (
        f"`target_modules`: {entry!r} matches {name!r}, which is outside the text decoder (a media tower or "
        "projector). MokA routes the decoder's tokens: name modules of the decoder, and train others with "
        "`modules_to_save`."
    )
