"""Parameter groups, and the settings that reach the optimizer."""

import io
import json
from pathlib import Path

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file
from transformers import Trainer

from moka_peft.training import MokaTrainer, load_adapted, load_recipe, train
from moka_peft.training import run as training_run
from moka_peft.training.parts import find_parts, part_of

pytestmark = pytest.mark.usefixtures("without_plots")


@pytest.fixture
def trainer(write_yaml, monkeypatch):
    """trainer(*settings) -> the Trainer of a run with these settings, before its first step."""

    def build(*settings: str) -> MokaTrainer:
        class Built(Exception):
            pass

        def stop(trainer, *_):
            raise Built(trainer)

        monkeypatch.setattr(training_run, "_fit", stop)
        with pytest.raises(Built) as caught:
            train(load_recipe(write_yaml(), ["data.eval=null", *settings]), Console(file=io.StringIO()))
        return caught.value.args[0]

    return build


def test_every_part_learns_at_its_own_rate(trainer):
    built = trainer(
        "train={towers: true, embeddings: true}",
        "training.weight_decay=0.1",
        "training.projector_learning_rate=1e-3",
        "training.tower_learning_rate=1e-5",
    )
    optimizer = built.create_optimizer()
    names = {id(parameter): name for name, parameter in built.model.named_parameters()}
    parts = find_parts(built.model.get_base_model())
    rates = {"adapter": 1e-2, "embeddings": 1e-2, "projectors": 1e-3, "towers": 1e-5}
    decayed, seen = Trainer.get_decay_parameter_names(built, built.model), []
    assert decayed and not any("bias" in name or "layernorm" in name for name in decayed)
    for group in optimizer.param_groups:
        for name in (names[id(parameter)] for parameter in group["params"]):
            seen.append(name)
            assert group["lr"] == rates[part_of(name, parts)], name
            assert group["weight_decay"] == (0.1 if name in decayed else 0.0), name
    assert sorted(seen) == sorted(name for name, parameter in built.model.named_parameters() if parameter.requires_grad)
    assert {part_of(name, parts) for name in seen} == set(rates)


def test_the_schedule_moves_all_rates_together(trainer):
    built = trainer("training.projector_learning_rate=1e-3", "training.warmup_steps=2", "training.scheduler=linear")
    built.create_optimizer_and_scheduler(num_training_steps=6)
    built.optimizer.step()
    built.lr_scheduler.step()
    assert {group["part"]: group["lr"] for group in built.optimizer.param_groups} == {
        "adapter": 5e-3,
        "projectors": 5e-4,
    }


@pytest.mark.parametrize(("share", "rates"), [("0.03", [0.0, 1e-2]), ("0.5", [0.0, 5e-3, 1e-2]), ("0", [1e-2])])
def test_warming_up_for_a_share_of_the_steps(trainer, share: str, rates: list[float]):
    built = trainer(f"training.warmup_ratio={share}", "training.scheduler=constant_with_warmup")
    built.create_optimizer_and_scheduler(num_training_steps=4)
    seen = []
    for _ in rates:
        seen.append(built.optimizer.param_groups[0]["lr"])
        built.optimizer.step()
        built.lr_scheduler.step()
    assert seen == rates


def test_without_rates_the_groups_are_the_trainers_own(trainer):
    groups = trainer().create_optimizer().param_groups
    assert len(groups) == 2 and all("part" not in group for group in groups)


def test_settings_of_the_optimizer_are_passed_on(trainer):
    built = trainer(
        "training.optimizer=adamw_torch",
        "training.betas=[0.8, 0.95]",
        "training.epsilon=1e-6",
        "training.max_grad_norm=0.5",
    )
    optimizer = built.create_optimizer()
    assert type(optimizer) is torch.optim.AdamW
    assert (optimizer.defaults["betas"], optimizer.defaults["eps"]) == ((0.8, 0.95), 1e-6)
    assert built.args.max_grad_norm == 0.5


def test_an_8_bit_optimizer_by_name(trainer):
    optimizer = trainer("training.optimizer=adamw_8bit").create_optimizer()
    assert type(optimizer).__module__.startswith("bitsandbytes")


def test_bf16_and_frozen_projectors(trainer):
    built = trainer("training.bf16=true", "train_projectors=false", "train.embeddings=true")
    assert built.args.bf16
    parts = find_parts(built.model.get_base_model())
    trained = {part_of(name, parts) for name, parameter in built.model.named_parameters() if parameter.requires_grad}
    assert trained == {"adapter", "embeddings"}


@pytest.mark.parametrize("train_section", ["train_projectors: true", "train: {projectors: true}"])
def test_both_ways_to_train_projectors_are_one(write_yaml, train_section: str):
    recipe = load_recipe(write_yaml("train_projectors: true", train_section))
    assert recipe.trained_parts() == ["projectors"]


def test_a_slow_projector_moves_less(write_yaml, tmp_path: Path):
    moved = {}
    for rate in ("1e-2", "1e-5"):
        out = tmp_path / rate
        settings = [f"training.projector_learning_rate={rate}", f"output_dir={out}", "data.eval=null"]
        train(load_recipe(write_yaml(), ["training.steps=2", *settings]), Console(file=io.StringIO()))
        projector = load_adapted(out)[0].get_base_model().vision_projector
        pairs = zip(
            projector.original_module.parameters(), projector.modules_to_save["default"].parameters(), strict=True
        )
        moved[rate] = sum(float((before - after).abs().sum()) for before, after in pairs)
    assert 0 < moved["1e-5"] < moved["1e-2"] / 100


def test_steps_without_any_loss_change_nothing_and_go_on(write_yaml, tmp_path: Path):
    answer = {"role": "assistant", "content": "yes", "loss": False}
    row = {"messages": [{"role": "user", "content": "is it?"}, answer]}
    (tmp_path / "rows.jsonl").write_text(f"{json.dumps(row)}\n" * 4)
    recipe = load_recipe(write_yaml("{name: av_digits, split: train, size: 20}", f"{{path: {tmp_path}/rows.jsonl}}"))
    recipe = recipe.model_copy(update={"data": recipe.data.model_copy(update={"eval": None})})
    metrics = train(recipe, Console(file=io.StringIO()))
    assert metrics["steps"] == 6
    weights = load_file(tmp_path / "out" / "adapter_model.safetensors")
    assert not any(weight.any() for name, weight in weights.items() if "moka_B" in name)
    assert all(weight.isfinite().all() for weight in weights.values())
