"""MokaModel: puts MokA layers into a model and its routing hook onto it."""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer, check_target_module_exists, onload_layer
from peft.utils.other import get_pattern_key
from torch import Tensor, nn

from moka_peft.routing.placeholders import check_has_media_tokens

from . import hook
from .channel import ATTRIBUTE, RoutingChannel
from .computation import DeltaOptions
from .layer import MokaLinear
from .sharding import forget_absent_layers
from .targets import expert_parameters, find_adaptable, placeholder_modalities

logger = logging.getLogger(__name__)


class MokaModel(BaseTuner):
    """A model with MokA adapters (arXiv 2506.05191), made by `get_peft_model(model, MokaConfig(...))`.

    Behaves as PEFT's LoraModel. The text path merges (`merge_adapter`): a decode step then does no adapter arithmetic,
    and in a forward with media the layers add what the folded weight does not hold.
    """

    prefix = "moka_"
    tuner_layer_cls: Any = MokaLinear
    target_module_mapping: dict[str, list[str]] = {}
    no_one_weight = (
        "`merge_and_unload` would lose the media path: media tokens take their own A and attend to the "
        "instruction, which no single weight can hold. Use merge_adapter(): it folds the text path, so "
        "that decoding costs nothing extra, and keeps the media path. unload() drops the adapter."
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.register_load_state_dict_pre_hook(_check_loaded_weights)

    def _prepare_adapter_config(self, peft_config: Any, model_config: dict) -> Any:
        check_has_media_tokens(getattr(self.model, "config", None))
        if peft_config.modalities is None:
            peft_config.modalities = placeholder_modalities(getattr(self.model, "config", None))
        self._adaptable = find_adaptable(self.model, peft_config)
        experts = expert_parameters(self.model)
        if experts:
            logger.warning(
                "MokA adapts Linears: %d expert weights of the text decoder, such as %s, stay as they are",
                len(experts),
                experts[0],
            )
        return peft_config

    def _check_target_module_exists(self, peft_config: Any, key: str) -> Any:  # pyright: ignore
        return key in self._adaptable and check_target_module_exists(peft_config, key)

    def _create_and_replace(
        self,
        peft_config: Any,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
        parameter_name: str | None = None,
    ) -> None:
        if type(target) is self.tuner_layer_cls:
            layer: Any = target
        elif isinstance(target, BaseTunerLayer):
            raise ValueError(
                f"{current_key!r} already carries a {type(target).__name__} adapter of another method. Unload it first."
            )
        else:
            layer = self.tuner_layer_cls(target, self._channel(), current_key)
        layer.update_layer(adapter_name, **self._layer_settings(peft_config, current_key))
        if layer is not target:
            if adapter_name not in self.active_adapters:
                layer.requires_grad_(False)
            self._replace_module(parent, target_name, layer, target)

    def _replace_module(self, parent: nn.Module, child_name: str, new_module: nn.Module, child: nn.Module) -> None:
        """PEFT's would move the adapter to its base weight's device, which is none where accelerate offloads it."""
        if isinstance(new_module, MokaLinear):
            setattr(parent, child_name, new_module)  # the layer has placed its adapter itself
        else:
            super()._replace_module(parent, child_name, new_module, child)

    def _options(self, config: Any, key: str) -> Any:
        """How the layer named `key` computes."""
        scale = config.cross_scale
        return DeltaOptions(
            modalities=tuple(config.modalities or ()),
            cross_scale=scale if isinstance(scale, int | float) else tuple(scale),
            interaction=config.interaction,
            scale_before_attention=config.scale_before_attention,
            instruction_span=config.instruction_span,
            impl=config.impl,
        )

    def _layer_settings(self, config: Any, key: str) -> dict[str, Any]:
        return {
            "options": self._options(config, key),
            "r": config.rank_pattern.get(get_pattern_key(config.rank_pattern.keys(), key), config.r),
            "lora_alpha": config.alpha_pattern.get(
                get_pattern_key(config.alpha_pattern.keys(), key), config.lora_alpha
            ),
            "lora_dropout": config.lora_dropout,
            "use_rslora": config.use_rslora,
            "init_lora_weights": config.init_lora_weights,
            "inference_mode": config.inference_mode,
        }

    def _channel(self) -> RoutingChannel:
        channel = self.model.__dict__.get(ATTRIBUTE)
        if channel is None:
            channel = RoutingChannel()
            setattr(self.model, ATTRIBUTE, channel)
        return channel

    def inject_adapter(self, model: nn.Module, *args: Any, **kwargs: Any) -> None:
        """As PEFT's. Each adapter may adapt other layers: PEFT's own hook after it runs for the first one only."""
        super().inject_adapter(model, *args, **kwargs)
        channel = self._channel()
        channel.configs = self.peft_config
        channel.layers = [m for m in model.modules() if isinstance(m, MokaLinear)]
        channel.checkpointed = [
            m
            for m in model.modules()
            if hasattr(m, "gradient_checkpointing") and any(isinstance(child, MokaLinear) for child in m.modules())
        ]
        hook.install(model, channel)
        forget_absent_layers(model)

    def _enable_peft_forward_hooks(self, *args: Any, **kwargs: Any) -> AbstractContextManager[None]:
        """PEFT calls this around forward and `generate`; without it, it drops `adapter_names` without a word."""
        if kwargs.get("adapter_names") is not None:
            raise ValueError(
                "`adapter_names`: MokA uses the same adapters for every row. Call the model once per adapter, after "
                "set_adapter(name)."
            )
        return nullcontext()

    def _unload_and_optionally_merge(self, *args: Any, **kwargs: Any) -> Any:
        model: Any = super()._unload_and_optionally_merge(*args, **kwargs)
        hook.uninstall(model)
        return model

    def merge_adapter(
        self, adapter_names: list[str] | None = None, safe_merge: bool = False, *, safe: bool = True
    ) -> None:
        """As PEFT's: folds the text path into the base weights.

        `safe` False: into a quantized base too (bitsandbytes 8-bit and 4-bit, torchao int8), rounded to its precision;
        `unmerge_adapter` puts the stored weights back bit for bit. Raises ValueError on such a base otherwise.
        """
        self._check_merge_allowed()
        for layer in (m for m in self.model.modules() if isinstance(m, MokaLinear)):
            with onload_layer(layer):
                layer.merge(safe_merge, adapter_names, allow_rounding=not safe)

    def merge_and_unload(self, *args: Any, **kwargs: Any) -> nn.Module:
        """As PEFT's, where that loses nothing: interaction "none" and equal A for all modalities.

        Raises ValueError otherwise, because a plain weight has no media path.
        """
        layers = [m for m in self.model.modules() if isinstance(m, MokaLinear)]
        for layer in layers:
            for adapter in layer.active_adapters:
                if adapter in layer.r and not layer.is_one_weight(adapter):
                    raise ValueError(self.no_one_weight)
        return super().merge_and_unload(*args, **kwargs)


ANOTHER_BASE = (
    "It was trained on another base model or with other target modules: load it onto the base that its "
    "adapter_config.json names."
)


def _check_loaded_weights(model: nn.Module, state_dict: dict[str, Tensor], prefix: str, *_: Any, **__: Any) -> None:
    """Stops where an adapter's file does not fit this model: other shapes, weights missing, weights left over."""
    own = {prefix + n: p for n, p in model.named_parameters() if ".moka_" in n}
    loaded = {key: value for key, value in state_dict.items() if ".moka_" in key}
    for key in loaded.keys() & own.keys():
        if loaded[key].shape != own[key].shape:
            raise ValueError(
                f"the adapter's {key!r} is {list(loaded[key].shape)}, but this model takes {list(own[key].shape)}. "
                + ANOTHER_BASE
            )
    adapters = {_adapter_of(key) for key in loaded}
    missing = [key for key in own if key not in loaded and _adapter_of(key) in adapters]
    if missing:
        raise ValueError(f"the adapter holds no {missing[0]!r}, nor {len(missing) - 1} more weights. {ANOTHER_BASE}")
    stray = [key for key in loaded if key not in own] + _lost_parts(model, state_dict, prefix)
    if stray:
        raise ValueError(f"the adapter's {stray[0]!r} and {len(stray) - 1} more fit no layer here. {ANOTHER_BASE}")


def _lost_parts(model: Any, state_dict: dict[str, Tensor], prefix: str) -> list[str]:
    """Keys of parts that trained in full (`modules_to_save`) and have no such weight here, such as those of a deeper
    projector: PEFT leaves these as they are, and torch passes over them."""
    parts = {f".{part}." for config in model.peft_config.values() for part in config.modules_to_save or ()}
    keys = [key for key in state_dict if any(part in f".{key}" for part in parts)]
    if not keys:
        return []
    own = {prefix + name for name, _ in model.named_parameters(remove_duplicate=False)}
    own |= {prefix + name for name, _ in model.named_buffers(remove_duplicate=False)}
    return [key for key in keys if key not in own]


def _adapter_of(key: str) -> str:
    """The adapter's name in a parameter's: ....moka_B.<adapter>.weight"""
    return key.rsplit(".", 2)[-2]
