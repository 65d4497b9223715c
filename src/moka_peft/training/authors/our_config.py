"""The config of an adapter of ours, in the words of theirs."""

from collections.abc import Mapping
from typing import Any

from moka_peft.training.authors.forms import FORMS
from moka_peft.tuner import MokaConfig

ORDER = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "down_proj", "up_proj")
"""Target modules as their scripts list them."""


def form_of(config: MokaConfig, wanted: str | None = None) -> str:
    """The form that an adapter of ours can be written in; `wanted`: the one it has to be.

    Raises ValueError naming the first option that has no counterpart there.
    """
    if wanted is None:
        options = {name: form.options for name, form in FORMS.items()}
        wanted = next((n for n, o in options.items() if all(getattr(config, k) == v for k, v in o.items())), None)
        if wanted is None:
            raise ValueError(
                f"`source` is neither of the authors' forms: scale_before_attention {config.scale_before_attention} "
                f"with instruction_span {config.instruction_span!r}: expected True with 'contiguous' (avt) or False "
                "with 'tokens' (vt). It cannot be exported."
            )
    form = FORMS[wanted]
    expected: dict[str, Any] = {
        **form.options,
        "modalities": form.modalities,
        "interaction": "cross_attention",
        "use_rslora": False,
        "rank_pattern": {},
        "alpha_pattern": {},
        "bias": "none",
        "layers_to_transform": None,
        "exclude_modules": None,
    }
    for key, value in expected.items():
        if getattr(config, key) != value:
            raise ValueError(
                f"`{key}` is {getattr(config, key)!r}: expected {value!r} for the form {wanted!r}. The authors' code "
                "computes nothing else, so this adapter cannot be exported to it."
            )
    if wanted == "avt" and config.r > 9:
        raise ValueError(f"`r` is {config.r}: expected at most 9 for the form 'avt', which writes a rank as one digit.")
    one_scale(config)
    return wanted


def write_settings(config: MokaConfig, name: str, modules: list[str], source: Mapping[str, Any]) -> dict[str, Any]:
    """Their adapter_config.json; source: the one that was imported, for its keys that mean nothing here."""
    form = FORMS[name]
    targets = [module for module in ORDER if module in modules] + [m for m in modules if m not in ORDER]
    given = source.get("target_modules")
    if isinstance(given, list) and {str(entry).rpartition(".")[2] for entry in given} == set(targets):
        targets = given
    derived = {
        "base_model_name_or_path": config.base_model_name_or_path or "",
        "lora_alpha": config.lora_alpha,
        "lora_dropout": config.lora_dropout,
        "peft_type": "LORA",
        "r": int(str(config.r) * len(form.modalities)) if name == "avt" else config.r,
        "target_modules": targets,
        form.lambda_key: one_scale(config),
    }
    return dict(sorted({**form.neutral, **form.constant, **source, **derived}.items()))


def one_scale(config: MokaConfig) -> float:
    """The lambda of all modalities. Raises ValueError where they have different ones."""
    scale = config.cross_scale
    scales = {scale} if isinstance(scale, int | float) else set(scale)
    if len(scales) > 1:
        raise ValueError(
            f"`cross_scale` is {scale!r}, one per modality: the authors' forms have one for all. This adapter cannot "
            "be exported."
        )
    return scales.pop()
