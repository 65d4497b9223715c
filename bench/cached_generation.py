"""`generate` with a cache against one plain forward on everything it wrote: unmerged, merged, and the base alone."""

from __future__ import annotations

from typing import Any

import torch
from chats import continued
from meter import Meter
from peft import PeftModel
from shapes import Shape
from torch import Tensor

NEW_TOKENS = 16
B_STD = 0.1  # an adapter that adds about a quarter of what a Linear gives: a wrong routing shows


@torch.no_grad()
def compare_cached(model: PeftModel, shape: Shape, prompts: dict[str, Tensor], device: str) -> dict[str, Any]:
    """The largest differences of logits, and how often the likeliest token is the same.

    The base's own difference is what rounding alone makes; `adapter_effect` is what there is to be wrong.
    `merged_difference`: merged against unmerged, both in one plain forward on the same tokens.
    """
    for name, parameter in model.named_parameters():
        if ".moka_B." in name:
            torch.nn.init.normal_(parameter, std=B_STD)
    with model.disable_adapter():
        base, _ = _generate(model, shape, prompts, device)
    unmerged, ids = _generate(model, shape, prompts, device)
    expected = _whole(model, prompts, ids)
    with model.disable_adapter():
        effect = (_whole(model, prompts, ids) - expected).abs().max().item()
    model.merge_adapter()
    merged, _ = _generate(model, shape, prompts, device)
    difference = (_whole(model, prompts, ids) - expected).abs().max().item()
    model.unmerge_adapter()
    return {
        "prompt_tokens": prompts["attention_mask"].sum(1).tolist(),
        "new_tokens": NEW_TOKENS,
        "adapter_effect": effect,
        "merged_difference": difference,
        "base": base,
        "unmerged": unmerged,
        "merged": merged,
    }


def _generate(model: PeftModel, shape: Shape, prompts: dict[str, Tensor], device: str) -> tuple[dict[str, Any], Tensor]:
    """The comparison of one `generate`, and the tokens [B, S] that its logits were computed from."""
    meter = Meter(device)
    output = meter.run(
        lambda: model.generate(
            **prompts,
            max_new_tokens=NEW_TOKENS,
            do_sample=False,
            suppress_tokens=list(range(shape.first_special, model.config.get_text_config().vocab_size)),
            pad_token_id=shape.pad,
            return_dict_in_generate=True,
            output_logits=True,
        )
    )
    cached, ids = torch.stack(output.logits, 1).float(), output.sequences[:, :-1]  # [B, NEW_TOKENS, V]
    whole = _whole(model, prompts, ids)
    found = {
        "max_difference": (cached - whole).abs().max().item(),
        "largest_logit": whole.abs().max().item(),
        "top1_agreement": (cached.argmax(-1) == whole.argmax(-1)).float().mean().item(),
        **meter.facts(),
    }
    return found, ids


def _whole(model: PeftModel, prompts: dict[str, Tensor], ids: Tensor) -> Tensor:
    """Logits [B, NEW_TOKENS, V] at the end of `ids`, from one forward without a cache."""
    return model(**continued(prompts, ids), use_cache=False, logits_to_keep=NEW_TOKENS).logits.float()
