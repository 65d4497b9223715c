"""A model with random weights and a recipe for it that trains in seconds."""

import multiprocessing
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from moka_peft.composite import CompositeForConditionalGeneration, tiny_avt_config, tiny_avt_processor

RECIPE = """\
model: {{name: {model}}}
data:
  train: {{name: av_digits, split: train, size: 20}}
  eval: {{name: av_digits, split: test, size: 6}}
adapter:
  r: 2
  lora_dropout: 0.1
training:
  steps: 6
  batch_size: 4
  learning_rate: 1e-2
  save_steps: 2
  num_threads: 1
evaluation: {{batch_size: 6, max_new_tokens: 2}}
train_projectors: true
output_dir: {out}
"""


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved audio-visual-text model, untrained."""
    folder = tmp_path_factory.mktemp("tiny")
    torch.manual_seed(0)
    CompositeForConditionalGeneration(tiny_avt_config()).save_pretrained(folder)
    tiny_avt_processor().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def recipe_text() -> str:
    """A recipe with `{model}` and `{out}` to fill in."""
    return RECIPE


@pytest.fixture
def write_yaml(tiny_folder: Path, tmp_path: Path) -> Callable[..., Path]:
    """write_yaml() -> a recipe that trains `tiny_folder` into tmp_path/out; write_yaml(old, new) changes it."""

    def write(old: str = "", new: str = "") -> Path:
        path = tmp_path / "recipe.yaml"
        text = RECIPE.format(model=tiny_folder, out=tmp_path / "out")
        assert old in text
        path.write_text(text.replace(old, new, 1))
        return path

    return write


@pytest.fixture(scope="session")
def processes():
    """Fresh processes that need not import torch again: they fork from one that has."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["moka_peft.training", "transformers.trainer", "sklearn.datasets"])
    return context
