"""The recorded model and layers of the authors, imported and used through the public API alone."""

import json

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from moka_peft import Routing, use_routing
from moka_peft.cli import call
from moka_peft.training.authors import export_adapter, import_adapter

from ...ops.test_recorded import Recording, assert_near


@pytest.fixture(scope="module")
def imported(golden, tmp_path_factory):
    target = tmp_path_factory.mktemp("authors") / "adapter"
    assert call(["import-authors-adapter", str(golden / "model_avt_tiny" / "official_adapter"), str(target)]) == 0
    return target


@pytest.fixture(scope="module")
def io(golden):
    return load_file(golden / "model_avt_tiny" / "io.safetensors")


@pytest.fixture
def model(golden, imported):
    folder = golden / "model_avt_tiny"
    base = LlamaForCausalLM(LlamaConfig(**json.loads((folder / "llama_config.json").read_text())))
    base.load_state_dict({k: v.float() for k, v in load_file(folder / "base_model_fp16.safetensors").items()})
    return PeftModel.from_pretrained(base, str(imported)).eval()


def routing(io):
    return Routing(io["modality_ids"], ((io["modality_ids"] > 0) | (io["question_mask"] > 0)).long())


def inputs(io):
    return {name: io[name] for name in ("inputs_embeds", "attention_mask", "position_ids")}


@torch.no_grad()
def test_logits(model, io):
    real = io["attention_mask"] == 1
    given = model(**inputs(io), routing=routing(io)).logits
    with use_routing(model, routing(io)):
        fixed = model(**inputs(io)).logits
    for logits in (given, fixed):
        assert (logits - io["logits"])[real].abs().max() <= 2e-4


@torch.no_grad()
def test_cached_decode(model, io):
    with use_routing(model, routing(io)):
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


def test_greedy_tokens(model, io):
    model.generation_config.eos_token_id = None  # the recording goes on past the end token
    with use_routing(model, routing(io)):
        tokens = model.generate(
            inputs_embeds=io["inputs_embeds"], attention_mask=io["attention_mask"], max_new_tokens=8, do_sample=False
        )
    assert torch.equal(tokens, io["greedy_token_ids"])


def test_the_export_is_the_source(golden, imported, tmp_path):
    source = golden / "model_avt_tiny" / "official_adapter"
    assert call(["export-authors-adapter", str(imported), str(tmp_path / "back")]) == 0
    was, now = (torch.load(f / "adapter_model.bin", weights_only=True) for f in (source, tmp_path / "back"))
    assert was.keys() == now.keys()
    assert all(torch.equal(was[key], now[key]) and was[key].dtype == now[key].dtype for key in was)
    was, now = (json.loads((f / "adapter_config.json").read_text()) for f in (source, tmp_path / "back"))
    assert was == now
    (imported / "authors.json").rename(tmp_path / "authors.json")  # as an adapter that was trained here
    try:
        export_adapter(imported, tmp_path / "own")
    finally:
        (tmp_path / "authors.json").rename(imported / "authors.json")
    assert json.loads((tmp_path / "own" / "adapter_config.json").read_text()) == was


class OneLinear(nn.Module):
    """A language model that is one Linear."""

    def __init__(self, weight, bias):
        super().__init__()
        self.model = nn.Module()
        self.model.layers = nn.ModuleList([nn.Module()])
        linear = nn.Linear(*weight.T.shape, bias=bias is not None, dtype=weight.dtype)
        linear.weight.data = weight
        if bias is not None:
            linear.bias.data = bias
        self.model.layers[0].q_proj = linear

    def forward(self, x):
        return self.model.layers[0].q_proj(x)


@pytest.mark.parametrize("name", ["vt_rightpad_noimage", "vt_leftpad_interleaved_bias", "avt_train_leftpad"])
def test_recorded_layers(golden, tmp_path, name):
    case, dtype = Recording(golden, name), torch.float64
    A = ["lora_A0", "lora_A1", "lora_A2"] if case.is_avt else ["lora_A.text", "lora_A.image"]
    tensors = {factor: case.tensors[f"lora_A_{kind}"] for factor, kind in zip(A, case.kinds, strict=True)}
    tensors |= {"lora_B0" if case.is_avt else "lora_B.text": case.tensors["lora_B"]}
    if not case.is_avt:
        tensors["lora_B.image"] = torch.randn_like(case.tensors["lora_B"])  # their forward never reads it
    config = {"r": int(str(case.facts["r"]) * 3) if case.is_avt else case.facts["r"]}
    config |= {"lora_alpha": case.facts["lora_alpha"], "lora_dropout": 0.0}
    config["blc_weight" if case.is_avt else "attn_weight"] = case.facts["lam"]
    source = tmp_path / "theirs"
    source.mkdir()
    (source / "adapter_config.json").write_text(json.dumps(config))
    prefix = "base_model.model.model.layers.0.q_proj."
    torch.save({f"{prefix}{factor}.weight": tensor for factor, tensor in tensors.items()}, source / "adapter_model.bin")
    import_adapter(source, tmp_path / "ours")
    bias = case.get("bias", dtype) if case.facts["has_bias"] else None
    base = OneLinear(case.get("weight", dtype), bias)
    model = PeftModel.from_pretrained(base, str(tmp_path / "ours"))
    y = model(case.get("x", dtype), routing=case.routing())
    assert_near({"y": y}, case.expected, dtype)
