"""Folders as the authors' code writes them, for a tiny composite; nothing recorded is needed."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import CLIPVisionConfig, LlamaConfig, WhisperConfig

from moka_peft.composite import CompositeConfig, CompositeForConditionalGeneration

from .their_projector import HEADS, HIDDEN, INNER, QUERIES, TheirProjector

WIDTH, RANK, LAYERS = 16, 3, 2
SHAPES = {"q_proj": (16, 16), "k_proj": (16, 16), "v_proj": (16, 16), "o_proj": (16, 16)}  # out, in
SHAPES |= {"gate_proj": (24, 16), "up_proj": (24, 16), "down_proj": (16, 24)}
FACTORS = {
    "avt": ("lora_A0", "lora_A1", "lora_A2", "lora_B0"),
    "vt": ("lora_A.text", "lora_A.image", "lora_B.text", "lora_B.image"),
}
STEM = {"avt": "base_model.model.model.layers", "vt": "base_model.model.model.language_model.layers"}
CONFIG = {
    "avt": {"r": 333, "lora_alpha": 6, "lora_dropout": 0.05, "lora_nums": 3, "peft_type": "LORA", "blc_weight": 1.0},
    "vt": {"r": 3, "lora_alpha": 6, "lora_dropout": 0.05, "peft_type": "LORA", "attn_weight": 0.05},
}
PROJECTOR = {
    "type": "qformer",
    "num_queries": QUERIES,
    "num_layers": 2,
    "hidden_size": HIDDEN,
    "num_attention_heads": HEADS,
    "intermediate_size": INNER,
}


@dataclass
class TheirFolder:
    """adapter, beside: the tensors of its two files, to be changed before `write`."""

    form: str
    config: dict[str, Any] | None
    adapter: dict[str, Tensor]
    beside: dict[str, Tensor]
    projectors: dict[str, TheirProjector]

    def write(self, folder: Path) -> Path:
        folder.mkdir()
        if self.config is not None:
            (folder / "adapter_config.json").write_text(json.dumps(self.config))
        torch.save(self.adapter, folder / "adapter_model.bin")
        if self.beside:
            torch.save(self.beside, folder / "non_lora_trainables.bin")
        return folder


@pytest.fixture
def theirs() -> Callable[..., TheirFolder]:
    """theirs("avt") -> what their training leaves for the composite; projectors=False: for its language model."""

    def build(form: str, *, projectors: bool = True, stem: str | None = None, name: str = "") -> TheirFolder:
        torch.manual_seed(0)
        adapter = {}
        for layer in range(LAYERS):
            for module, (rows, columns) in SHAPES.items():
                block = "mlp" if module in ("gate_proj", "up_proj", "down_proj") else "self_attn"
                for factor in FACTORS[form]:
                    shape = (rows, RANK) if "_B" in factor else (RANK, columns)
                    key = f"{stem or STEM[form]}.{layer}.{block}.{module}.{factor}{name}.weight"
                    adapter[key] = torch.randn(shape)
        kinds = {"vl_projector": ("visual", 8), "al_projector": ("audio", 12)}
        if form == "vt":
            kinds = {"multi_modal_projector": ("visual", 8)}
        parts = {n: TheirProjector(kind, width, WIDTH) for n, (kind, width) in kinds.items() if projectors}
        beside = {
            f"base_model.model.model.{n}.{key}": weight.detach().clone()
            for n, part in parts.items()
            for key, weight in part.named_parameters()
        }
        return TheirFolder(form, dict(CONFIG[form]), adapter, beside, parts)

    return build


@pytest.fixture
def composite() -> Callable[[str], CompositeForConditionalGeneration]:
    """composite("avt") -> the base model that goes with `theirs("avt")`, in float64."""

    def build(form: str) -> CompositeForConditionalGeneration:
        torch.manual_seed(1)
        text = LlamaConfig(
            hidden_size=WIDTH, intermediate_size=24, num_hidden_layers=LAYERS, num_attention_heads=2, vocab_size=40,
            pad_token_id=0,
        )  # fmt: skip
        vision = CLIPVisionConfig(
            hidden_size=8, intermediate_size=12, num_hidden_layers=2, num_attention_heads=2, image_size=16, patch_size=8
        )
        audio = WhisperConfig(
            vocab_size=1, pad_token_id=0, bos_token_id=0, eos_token_id=0, decoder_start_token_id=0, d_model=12,
            encoder_layers=1, encoder_attention_heads=2, encoder_ffn_dim=16, num_mel_bins=8, max_source_positions=5,
            decoder_layers=0,
        )  # fmt: skip
        parts: dict[str, Any] = {"vision_config": vision, "vision_projector": PROJECTOR, "image_token_id": 5}
        if form == "avt":
            parts |= {"audio_config": audio, "audio_projector": PROJECTOR, "audio_token_id": 7}
        return CompositeForConditionalGeneration(CompositeConfig(text_config=text, **parts)).double().eval()

    return build
