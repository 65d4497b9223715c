"""A tower that trains in two processes has weights that no loss reaches, such as layers past the one that is read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import CLIPVisionConfig, CLIPVisionModel, LlamaConfig, LlamaForCausalLM
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from moka_peft.composite import build_composite, tiny_avt_processor
from moka_peft.training import load_recipe, train

from .launch import Launch

LAYERS = {"num_hidden_layers": 2, "num_attention_heads": 2, "hidden_size": 16, "intermediate_size": 24}


def write_recipe(folder: Path) -> Path:
    """A recipe that trains a CLIP of which the first of two layers is read."""
    torch.manual_seed(0)
    known = tiny_avt_processor()
    text = LlamaForCausalLM(LlamaConfig(**LAYERS, vocab_size=len(known.tokenizer), pad_token_id=0))
    vision = CLIPVisionModel(CLIPVisionConfig(**LAYERS, image_size=16, patch_size=8))
    images = CLIPImageProcessorPil(size={"shortest_edge": 16}, crop_size=16)
    parts = [text, vision, None, known.tokenizer, images]
    for part in build_composite(*parts, chat_template=known.chat_template, vision_feature_layers=[1]):
        part.save_pretrained(folder / "model")
    talk = [{"from": "human", "value": "<image>\nWhich digit?"}, {"from": "gpt", "value": "two"}]
    Image.new("RGB", (128, 32)).save(folder / "image.png")
    rows = [{"id": index, "image": "image.png", "conversations": talk} for index in range(4)]
    (folder / "rows.json").write_text(json.dumps(rows))
    recipe: dict[str, Any] = {
        "model": {"name": str(folder / "model")},
        "data": {"train": {"path": str(folder / "rows.json")}},
        "adapter": {"r": 2},
        "train": {"towers": True},
        "training": {"steps": 3, "batch_size": 2},
        "output_dir": str(folder / "run"),
    }
    (folder / "recipe.yaml").write_text(json.dumps(recipe))
    return folder / "recipe.yaml"


def run(recipe: str) -> int:
    return train(load_recipe(Path(recipe)))["steps"]


def test_a_tower_trains_in_two_processes(processes, tmp_path):
    recipe = write_recipe(tmp_path)
    launch = Launch(processes, tmp_path / "ranks", f"{__name__}:run", {"recipe": str(recipe)}, 2)
    assert launch.results() == [3, 3]
    before = load_file(tmp_path / "model" / "model.safetensors")
    after = load_file(tmp_path / "run" / "adapter_model.safetensors")
    tower = {name.removeprefix("base_model.model."): weight for name, weight in after.items() if "encoder." in name}
    moved = {name for name, weight in tower.items() if not torch.equal(weight, before[name])}
    assert any("layers.0." in name for name in moved) and not any("layers.1." in name for name in moved)
