"""Which class opens a model from a folder: also one that hears and does not see."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import Qwen2_5OmniThinkerForConditionalGeneration

from moka_peft.training import load_model
from moka_peft.training.model import _first_device
from moka_peft.training.processes import local_device

from ..families.zoo import FAMILIES


@pytest.mark.parametrize("name", ["qwen2_audio", "audioflamingo3", "voxtral", "phi4_multimodal", "llava", "qwen2_5_vl"])
def test_a_folder_opens_as_what_was_saved(name: str, tmp_path):
    model = FAMILIES[name].build()
    model.save_pretrained(tmp_path)
    loaded, processor = load_model(str(tmp_path), with_processor=False)
    assert type(loaded) is type(model) and processor is None
    weights = loaded.state_dict()
    assert all(torch.equal(weight, weights[key]) for key, weight in model.state_dict().items())


def test_every_process_has_a_gpu_of_its_own(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert local_device() == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert local_device() == "cuda:0"
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert local_device() == "cuda:3"


@pytest.mark.parametrize(
    ("free", "sharded", "device"), [(10**9, True, "cuda:0"), (100, True, "cpu"), (100, False, "cuda:0")]
)
def test_a_model_that_does_not_fit_waits_on_the_cpu_to_be_sharded(monkeypatch, free: int, sharded: bool, device: str):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 10**9))
    monkeypatch.setenv("ACCELERATE_USE_FSDP", str(sharded))
    assert _first_device(torch.nn.Linear(100, 100)) == device


def test_of_a_model_that_speaks_too_the_thinker_is_opened(tmp_path: Path):
    whole = FAMILIES["qwen2_5_omni"].build()
    whole.save_pretrained(tmp_path)
    opened, _ = load_model(str(tmp_path), with_processor=False)
    assert type(opened) is Qwen2_5OmniThinkerForConditionalGeneration
    assert all(torch.equal(weight, opened.state_dict()[name]) for name, weight in whole.thinker.state_dict().items())
