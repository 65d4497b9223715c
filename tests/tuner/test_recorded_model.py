"""A tiny LLaMA with the authors' adapter, recorded end to end: logits, gradients, cached decode, greedy tokens."""

import json

import pytest
import torch
from peft import get_peft_model
from safetensors.torch import load_file
from transformers import LlamaConfig, LlamaForCausalLM

from moka_peft import MokaConfig, Routing, use_routing

NAMES = {
    "lora_A0": "moka_A_text.default",
    "lora_A1": "moka_A_visual.default",
    "lora_A2": "moka_A_audio.default",
    "lora_B0": "moka_B.default",
}


def renamed(tensors):
    for old, new in NAMES.items():
        tensors = {key.replace(old, new): value for key, value in tensors.items()}
    return tensors


@pytest.fixture(scope="module")
def recorded(golden):
    folder = golden / "model_avt_tiny"
    return {name: load_file(folder / f"{name}.safetensors") for name in ("io", "adapter_grads")}


@pytest.fixture(scope="module")
def routing(recorded):
    modality, question = recorded["io"]["modality_ids"], recorded["io"]["question_mask"]
    return Routing(modality, ((modality > 0) | (question > 0)).long())


@pytest.fixture
def model(golden):
    folder = golden / "model_avt_tiny"
    base = LlamaForCausalLM(LlamaConfig(**json.loads((folder / "llama_config.json").read_text())))
    base.load_state_dict({k: v.float() for k, v in load_file(folder / "base_model_fp16.safetensors").items()})
    config = MokaConfig(
        r=4,
        lora_alpha=16,
        modalities=("text", "visual", "audio"),
        scale_before_attention=True,
        instruction_span="contiguous",
    )
    adapted = get_peft_model(base, config)
    adapted.load_state_dict(renamed(load_file(folder / "adapter_official_keys.safetensors")), strict=False)
    return adapted.eval()


def inputs(io):
    return {name: io[name] for name in ("inputs_embeds", "attention_mask", "position_ids")}


def test_logits_loss_and_gradients(model, routing, recorded):
    io, expected = recorded["io"], renamed(recorded["adapter_grads"])
    real = io["attention_mask"] == 1
    out = model.train()(**inputs(io), labels=io["labels"], routing=routing)
    assert (out.logits - io["logits"])[real].abs().max() <= 2e-4
    assert abs(out.loss.item() - io["loss"].item()) <= 1e-5
    out.loss.backward()
    parameters = dict(model.named_parameters())
    for name, gradient in expected.items():
        assert (parameters[name].grad - gradient).abs().max() <= 2e-4 * max(1, gradient.abs().max()), name


def test_cached_decode(model, routing, recorded):
    io = recorded["io"]
    with torch.no_grad(), use_routing(model, routing):
        step = model(**inputs(io), use_cache=True)
        mask, positions = io["attention_mask"], io["position_ids"][:, -1:]
        for index, token in enumerate(io["decode_token_ids"].T):
            mask, positions = torch.cat([mask, torch.ones_like(mask[:, :1])], 1), positions + 1
            step = model(
                input_ids=token[:, None],
                attention_mask=mask,
                position_ids=positions,
                past_key_values=step.past_key_values,
                use_cache=True,
            )
            assert (step.logits[:, 0] - io["decode_logits"][:, index]).abs().max() <= 2e-4


@pytest.mark.parametrize("merged", [False, True])
def test_greedy_tokens(model, routing, recorded, merged):
    io = recorded["io"]
    if merged:
        model.merge_adapter()
    model.generation_config.eos_token_id = None  # the recording goes on past the end token
    tokens = model.generate(
        inputs_embeds=io["inputs_embeds"],
        attention_mask=io["attention_mask"],
        routing=routing,
        max_new_tokens=8,
        do_sample=False,
    )
    assert torch.equal(tokens, io["greedy_token_ids"])
