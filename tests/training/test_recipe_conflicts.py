"""What a recipe asks for that contradicts itself, or that this machine lacks: all of it together, with its place."""

import importlib.util
from pathlib import Path

import pytest
import torch

from moka_peft.training import RecipeError, load_recipe, train

VALID = """\
model: {name: tiny-avt}
data:
  train: {name: av_digits}
output_dir: runs/x
training:
  steps: 10
"""


@pytest.fixture
def problems(tmp_path: Path):
    """problems(text, to_train=False) -> what is wrong with a recipe, without the file's name."""

    def find(text: str, **options: bool) -> list[str]:
        path = tmp_path / "recipe.yaml"
        path.write_text(text)
        with pytest.raises(RecipeError) as caught:
            load_recipe(path, **options)
        return [problem.removeprefix(f"{path}:") for problem in caught.value.problems]

    return find


def test_contradictions_are_reported_together(problems):
    text = (
        VALID
        + """\
  bf16: true
  fp16: true
  best: wer
  early_stopping: {metric: loss, patience: 0}
  projector_learning_rate: 1e-3
  tower_learning_rate: 1e-3
  optimizer: adam
  betas: [0.9]
  warmup_steps: 5
  warmup_ratio: 0.1
  report_to: [paper]
train: {projectors: false, head: true}
train_projectors: true
push_to_hub: not a repository
"""
    )
    assert problems(text) == [
        "8: `training.fp16` is set beside `training.bf16`. Keep one of them.",
        "9: `training.best` needs held-out samples. Add `data.eval`.",
        "9: `training.best` needs evaluations on the way. Set `evaluation.steps`.",
        "9: `training.best` is not measured: expected loss or exact_match, got wer. Set `evaluation.metric`.",
        "10: `training.early_stopping.metric` needs held-out samples. Add `data.eval`.",
        "10: `training.early_stopping.metric` needs evaluations on the way. Set `evaluation.steps`.",
        "10: `training.early_stopping.patience` is wrong: expected greater than 0, got 0.",
        "12: `training.tower_learning_rate` has no effect: the towers do not train. Set `train.towers: true`.",
        "13: `training.optimizer` is wrong: expected one of the Trainer's optimizers (adamw_torch, adamw_torch_fused, "
        "adamw_torch_xla, adamw_torch_npu_fused, adafactor, adamw_anyprecision, adamw_torch_4bit, adamw_torch_8bit, "
        "...), got adam.",
        "14: `training.betas` is wrong: expected two numbers, got [0.9].",
        "16: `training.warmup_ratio` is set beside `training.warmup_steps`. Keep one of them.",
        "17: `training.report_to.0` is wrong: expected 'tensorboard', 'wandb' or 'trackio', got 'paper'.",
        "18: `train.projectors` is false beside `train_projectors: true`. Keep one of them.",
        "18: `train.head` is not a recipe key. Known here: embeddings, projectors, towers.",
        "20: `push_to_hub` is wrong: no hub repository: expected `user/name`, got not a repository.",
    ]


@pytest.mark.parametrize("name", ["user", "user/", "/name", "a/b/c", "user/na me", "user/na--me", "user/.x", "u/x.git"])
def test_a_malformed_repository_is_refused(problems, name: str):
    [problem] = problems(VALID + f"push_to_hub: '{name}'")
    assert "expected `user/name`" in problem


@pytest.mark.parametrize("name", ["user/name", "org-1/My.model_v2", "a/b"])
def test_a_repository_is_taken_as_written(tmp_path: Path, name: str):
    (tmp_path / "recipe.yaml").write_text(VALID + f"push_to_hub: {name}")
    assert load_recipe(tmp_path / "recipe.yaml").push_to_hub == name


@pytest.fixture
def poor_machine(monkeypatch):
    """A machine without GPU and without any optional package."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    find = importlib.util.find_spec
    optional = ("tensorboard", "wandb", "trackio", "bitsandbytes")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name in optional else find(name, *a))


WISHES = """\
  fp16: true
  optimizer: paged_adamw_8bit
  report_to: [tensorboard, wandb]
  best: loss
evaluation: {steps: 1}
"""


def test_what_the_machine_lacks_is_reported_before_training(problems, poor_machine, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    text = VALID.replace("  train: {name: av_digits}", "  train: {name: av_digits}\n  eval: {name: av_digits}")
    assert problems(text + WISHES, to_train=True) == [
        "8: `training.fp16` needs a GPU: the CPU trains in float32 or `bf16`. Remove it.",
        "9: `training.optimizer` needs a package: pip install bitsandbytes",
        "10: `training.report_to` needs a package: pip install tensorboard",
        "10: `training.report_to` needs a package: pip install wandb",
        "11: `training.best` cannot be taken back while the model is sharded. Remove it, or use DDP or ZeRO-2.",
    ]


def test_another_machine_may_have_it(tmp_path: Path, poor_machine, monkeypatch):
    text = VALID.replace("  train: {name: av_digits}", "  train: {name: av_digits}\n  eval: {name: av_digits}")
    (tmp_path / "recipe.yaml").write_text(text + WISHES)
    recipe = load_recipe(tmp_path / "recipe.yaml")
    monkeypatch.setattr("moka_peft.training.run.load_model", lambda **_: pytest.fail("a model was loaded"))
    with pytest.raises(RecipeError, match="`training.fp16` needs a GPU"):
        train(recipe)
