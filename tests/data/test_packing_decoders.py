"""The table of language models that keep the samples of a packed row apart: each is tried, and so are some others."""

from typing import Any

import pytest
import torch
import transformers

from moka_peft.data.packing import DECODERS

TEXT = dict(
    vocab_size=64,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=1,
    head_dim=16,
    sliding_window=8,
    pad_token_id=0,
    bos_token_id=1,
    eos_token_id=2,
    max_position_embeddings=128,
)
OF_A_FAMILY = ("qwen2_vl_text", "qwen2_5_vl_text")  # tried within their families, in test_packing.py
EXPERTS = dict(num_experts=2, num_local_experts=2, num_experts_per_tok=2, moe_intermediate_size=16, head_dim=16)
LINEAR = dict(layer_types=["linear_attention", "full_attention"], linear_num_key_heads=2, linear_num_value_heads=2)
LEAKS = {"qwen3_next": {**LINEAR, **EXPERTS}, "bloom": {"n_layer": 2, "n_head": 2}}


def worst_difference(model_type: str, attention: str, **options: Any) -> float:
    """Largest difference of a logit in a row of three samples from that of the sample alone."""
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(model_type, **{**TEXT, **options})
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation=attention).eval()
    for parameter in model.parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)
    samples = [torch.randint(3, 64, (1, length)) for length in (20, 1, 30)]
    positions = torch.cat([torch.arange(ids.shape[1]) for ids in samples])[None]
    options = {"use_cache": False}
    with torch.no_grad():
        row = model(torch.cat(samples, 1), position_ids=positions, **options).logits
        alone = torch.cat([model(ids, **options).logits for ids in samples], 1)
    return float((row - alone).abs().max() / alone.abs().max())


CELLS = [(name, attention) for name in sorted(DECODERS - set(OF_A_FAMILY)) for attention in ("sdpa", "eager")]
CELLS.remove(("gemma2", "sdpa"))  # transformers has no such implementation of it


@pytest.mark.parametrize(("model_type", "attention"), CELLS)
def test_samples_of_a_row_do_not_see_one_another(model_type: str, attention: str):
    more = EXPERTS if "moe" in model_type or model_type == "mixtral" else {}
    assert worst_difference(model_type, attention, **more) < 1e-4  # 2e-6 at most


@pytest.mark.parametrize("model_type", LEAKS)
def test_others_are_not_in_the_table_because_they_leak(model_type: str):
    assert model_type not in DECODERS
    try:
        assert worst_difference(model_type, "eager", **LEAKS[model_type]) > 1e-2
    except TypeError as refusal:
        assert "position_ids" in str(refusal)
