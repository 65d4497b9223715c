"""Counts what a training forward keeps for its backward: a frozen bf16 decoder, PEFT's LoRA on it, and MokA.

    python bench/kept_activations.py        # seconds on a CPU; the counts do not depend on the machine

Bytes of the tensors that autograd saves, parameters not counted, no gradient checkpointing. Writes
bench/results/kept_activations.json.
"""

import json
import sys
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from moka_peft import MokaConfig, Routing
from moka_peft.analysis.speed import kept_bytes
from moka_peft.cli.env import environment

SEQUENCE, MEDIA, INSTRUCTION = 1024, 800, 40  # tokens
SHAPE = dict(hidden_size=512, intermediate_size=1376, num_hidden_layers=2, num_attention_heads=8, num_key_value_heads=8)
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
RESULT = Path(__file__).parent / "results" / "kept_activations.json"


def build_base() -> LlamaForCausalLM:
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**SHAPE, vocab_size=1000)).to(torch.bfloat16)


def one_turn() -> Routing:
    """Twenty text tokens, the media, the instruction, and an answer."""
    modality, turn = torch.zeros(1, SEQUENCE, dtype=torch.long), torch.zeros(1, SEQUENCE, dtype=torch.long)
    modality[:, 20 : 20 + MEDIA] = 1
    turn[:, 20 : 20 + MEDIA + INSTRUCTION] = 1
    return Routing(modality, turn)


def kept(model: nn.Module, **inputs: Routing) -> int:
    """Bytes that one training forward saves, parameters left out."""
    ids = torch.arange(SEQUENCE).unsqueeze(0) % 1000
    return kept_bytes(lambda: model.train()(ids, use_cache=False, **inputs).logits.sum(), model.parameters())


def measure() -> dict[str, int]:
    base = build_base().requires_grad_(False)
    base.enable_input_require_grads()
    found = {"frozen base": kept(base)}
    for name, upcast in (("float32", True), ("bfloat16", False)):
        lora = get_peft_model(build_base(), LoraConfig(r=8, target_modules=TARGETS), autocast_adapter_dtype=upcast)
        moka = get_peft_model(
            build_base(), MokaConfig(r=8, modalities=("text", "visual")), autocast_adapter_dtype=upcast
        )
        for model in (lora, moka):
            model.enable_input_require_grads()
        found[f"LoRA, {name} weights"] = kept(lora)
        found[f"MokA, {name} weights"] = kept(moka, routing=one_turn())
    return found


def main() -> None:
    """Measures, prints and records."""
    found = measure()
    more = {name: count - found["frozen base"] for name, count in found.items()}
    for name, count in found.items():
        print(f"{name:24} {count / 1e6:8.1f} MB kept, {more[name] / 1e6:6.1f} MB more than the frozen base")
    record = {
        "environment": environment(),
        "command": " ".join(["python", "bench/kept_activations.py", *sys.argv[1:]]),
        "seed": 0,
        "shape": {**SHAPE, "sequence": SEQUENCE, "media": MEDIA, "instruction": INSTRUCTION, "batch": 1, "rank": 8},
        "bytes_kept": found,
        "bytes_more_than_frozen_base": more,
    }
    RESULT.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
