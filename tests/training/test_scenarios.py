"""Stage 1, then stage 2 of a scenario: the recipes that are in the project, on models of a few steps."""

import importlib.util
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from moka_peft.training import load_adapted, load_recipe, train

pytestmark = pytest.mark.usefixtures("without_plots")

ROOT = Path(__file__).parents[2]
SHORT = ["training.steps=2", "training.batch_size=4", "evaluation.steps=1", "data.eval.size=4", "data.train.size=8"]
PARTS = {"avt": ("vision", "audio"), "vt": ("vision",), "st": ("audio",)}
FOLDERS = {"vision": "vision", "audio": "speech"}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The language model and the encoders, built by the project's script in two steps each."""
    spec = importlib.util.spec_from_file_location("builder", ROOT / "scripts" / "build_scenario_models.py")
    assert spec is not None and spec.loader is not None
    builder = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(builder)
    out, threads = tmp_path_factory.mktemp("models"), str(torch.get_num_threads())
    steps = ["--text-steps", "2", "1", "--encoder-steps", "2", "--test-size", "20"]
    builder.main([*steps, "--threads", threads, "--out", str(out)])
    return out


def settings(models: Path, scenario: str, out: Path, *more: str) -> list[str]:
    """What leads a recipe of the project to the models and the output of a test."""
    parts = [f"model.{part}.name={models / FOLDERS[part]}" for part in PARTS[scenario]]
    return [f"model.text={models / 'text'}", *parts, f"output_dir={out}", *SHORT, *more]


@pytest.mark.parametrize("scenario", PARTS)
def test_stage_2_begins_where_stage_1_ended(scenario: str, models: Path, tmp_path: Path):
    first = load_recipe(
        ROOT / f"recipes/scenarios/{scenario}_stage1.yaml", settings(models, scenario, tmp_path / "stage1")
    )
    aligned = train(first)
    start = f"model.start_from=[{tmp_path / 'stage1'}]"
    second = settings(models, scenario, tmp_path / "moka", start)
    adapted = train(load_recipe(ROOT / f"recipes/scenarios/{scenario}_stage2.yaml", second))

    assert adapted["before"] == aligned["after"]
    assert adapted["held_out_loss"]["before"] == pytest.approx(aligned["held_out_loss"]["after"], rel=1e-5)
    assert adapted["media_with_keys"] == {"default": 1.0}
    assert {group for group in adapted["after"]} == {"all", "known", "new"}
    model, _ = load_adapted(tmp_path / "stage1")
    trained = {name for name, weight in model.named_parameters() if "modules_to_save" in name}
    assert {name.split("_projector")[0].rpartition(".")[2] for name in trained} == set(PARTS[scenario])
    text = load_file(models / "text" / "model.safetensors")
    held = model.get_base_model().text_model.state_dict()
    for name, weight in text.items():
        torch.testing.assert_close(held[name][: len(weight)], weight, rtol=0, atol=0)


def test_lora_runs_at_the_settings_of_moka(models: Path, tmp_path: Path):
    train(load_recipe(ROOT / "recipes/scenarios/vt_stage1.yaml", settings(models, "vt", tmp_path / "stage1")))
    more = ["adapter.method=lora", f"model.start_from=[{tmp_path / 'stage1'}]"]
    lora = train(
        load_recipe(ROOT / "recipes/scenarios/vt_stage2.yaml", settings(models, "vt", tmp_path / "lora", *more))
    )
    assert lora["steps"] == 2 and lora["trained_parameters"] > 0


def test_the_script_says_what_the_models_were_trained_on(models: Path):
    speech = json.loads((models / "speech" / "training.json").read_text())
    assert speech["speech"] == "synthesised" and speech["recordings"] == 240
    vision = json.loads((models / "vision" / "training.json").read_text())
    assert vision["images"] == 800 and 0 <= vision["test_accuracy"] <= 1
