"""The config of an adapter of theirs, in `MokaConfig`'s words."""

from collections.abc import Mapping
from typing import Any

from moka_peft.training.authors.forms import FORMS, Form


def read_settings(
    config: Mapping[str, Any], form: Form, rank: int, given: Mapping[str, float | None]
) -> tuple[dict[str, Any], dict[str, float]]:
    """Keywords of `MokaConfig` from their config, and those among them that neither it nor `given` states.

    given: `lora_alpha`, `lora_dropout` and `cross_scale`, for a folder without a config. Raises ValueError where a
    value has no counterpart, contradicts `given`, or does not fit the weights' rank.
    """
    for key, neutral in form.neutral.items():
        if config.get(key, neutral) != neutral:
            raise ValueError(
                f"`source`: {key} is {config[key]!r} in adapter_config.json: expected {neutral!r}. The import knows no "
                "counterpart of it."
            )
    _check_rank(config.get("r"), form, rank)
    stated = {"lora_alpha": "lora_alpha", "lora_dropout": "lora_dropout", "cross_scale": form.lambda_key}
    settings, assumed = {}, {}
    for ours, theirs in stated.items():
        written, wanted = config.get(theirs), given.get(ours)
        if written is not None and wanted is not None and written != wanted:
            raise ValueError(f"`{ours}` is {wanted}, but adapter_config.json says {theirs}: {written}. Leave it out.")
        settings[ours] = wanted if written is None else written
        if settings[ours] is None:
            settings[ours] = assumed[ours] = form.released[ours]
    return {"r": rank, **settings, **form.options}, assumed


def _check_rank(r: Any, form: Form, rank: int) -> None:
    """Raises ValueError where their `r` is not the rank of the weights; "avt" writes one digit per modality."""
    if r is None:
        return
    digits = str(r)
    if form is FORMS["avt"]:
        if not digits.isdecimal() or len(digits) != len(form.modalities):
            raise ValueError(f"`source`: r is {r!r} in adapter_config.json: expected a digit per modality, as in 444.")
        if len(set(digits)) > 1:
            raise ValueError(
                f"`source`: r is {r!r}, a rank of its own for each modality: `MokaConfig` has one for all. Adapters of "
                "unequal ranks cannot be imported."
            )
        digits = digits[0]
    if digits != str(rank):
        raise ValueError(f"`source`: r is {r!r} in adapter_config.json, but the weights have rank {rank}.")


def check_targets(targets: Any, modules: list[str]) -> None:
    """Raises ValueError where a list of target modules is not what the weights adapt; full names are read by their
    last part."""
    if isinstance(targets, list | tuple) and (named := {str(name).rpartition(".")[2] for name in targets}):
        if named != set(modules):
            raise ValueError(
                f"`source`: adapter_config.json names the target modules {', '.join(sorted(named))}, but the weights "
                f"are of {', '.join(modules)}. Take config and weights of one run."
            )
