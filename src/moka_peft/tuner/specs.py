"""Where the routing spec of a model comes from: its adapter's config, or else its processor."""

from __future__ import annotations

from typing import Any

from torch import nn

from moka_peft.routing import RoutingSpec


def spec_of(model: nn.Module, config: Any) -> RoutingSpec:
    """`config.routing`, or else the spec of the processor the model was loaded with (local files first).

    A derived spec is kept in `config.routing` and so saved with the adapter. Raises ValueError where there is no
    processor, or where a modality of the adapter has no placeholder token.
    """
    if config.routing is None:
        config.routing = RoutingSpec.from_pretrained(model, _processor_of(model))
    missing = [m for m in config.modalities[1:] if m not in config.routing.placeholders]
    if missing:
        raise ValueError(
            f"`routing`: no placeholder token found for modality {missing[0]!r}; the spec knows "
            f"{list(config.routing.placeholders)}. Give its token ids in RoutingSpec(placeholders=...), or leave it "
            "out of MokaConfig(modalities=...)."
        )
    return config.routing


def _processor_of(model: nn.Module) -> Any:
    from transformers import AutoProcessor

    name = getattr(getattr(model, "config", None), "name_or_path", "")
    hint = "Pass MokaConfig(routing=RoutingSpec.from_pretrained(model, processor)), or Routing(...) to the forward."
    if not name:
        raise ValueError(f"MokA has no routing spec, and the model's config names no folder or hub id. {hint}")
    try:
        return AutoProcessor.from_pretrained(name, local_files_only=True)
    except (OSError, ValueError):
        pass
    try:
        return AutoProcessor.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise ValueError(f"MokA has no routing spec, and no processor could be loaded from {name!r}. {hint}") from error
