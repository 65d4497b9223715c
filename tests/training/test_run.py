import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from moka_peft.cli import call
from moka_peft.data.row_plan import pack_rows
from moka_peft.training import generate_answers, load_adapted, load_recipe, train
from moka_peft.training import run as training_run
from moka_peft.training.reading import held_out_collator, open_source


@pytest.fixture(scope="module")
def moka_run(tiny_folder, tmp_path_factory, recipe_text) -> tuple[Path, dict, str]:
    """The folder, metrics and output of a short run with projectors and an evaluation on the way."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "recipe.yaml").write_text(recipe_text.format(model=tiny_folder, out=folder / "out"))
    console = Console(file=io.StringIO(), width=200)
    metrics = train(load_recipe(folder / "recipe.yaml", ["evaluation.steps=3"]), console)
    return folder / "out", metrics, console.file.getvalue()


def test_a_run_leaves_all_that_using_it_needs(moka_run):
    out, _, shown = moka_run
    assert {"recipe.yaml", "metrics.json", "loss.png", "adapter_model.safetensors", "processor_config.json"} <= {
        path.name for path in out.iterdir()
    }
    assert "step 6/6" in shown
    model, processor = load_adapted(out)
    assert model.peft_config["default"].peft_type == "MOKA"
    assert processor.image_token == "<image>"


def test_the_metrics_tell_what_changed(moka_run):
    out, metrics, shown = moka_run
    assert json.loads((out / "metrics.json").read_text()) == json.loads(json.dumps(metrics))
    assert metrics["steps"] == 6
    assert metrics["before"].keys() == metrics["after"].keys() == {"all", "Audio", "Visual", "Audio-Visual"}
    assert metrics["after"]["all"]["total"] == 6
    assert 0 < metrics["trained_parameters"] < metrics["parameters"]
    assert metrics["media_with_keys"] == {"default": 1.0}
    [on_the_way] = metrics["during"]
    assert on_the_way["step"] == 3
    assert shown.count("accuracy") == 3


def answers_of(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "answers.jsonl").read_text().splitlines()]


def test_the_answers_are_those_of_the_score(moka_run):
    out, metrics, _ = moka_run
    rows = answers_of(out)
    assert len({row["id"] for row in rows}) == 6
    assert sum(row["points"] for row in rows) == metrics["after"]["all"]["right"]
    assert all((row["answer"] == row["reference"]) == bool(row["points"]) for row in rows)
    assert {row["group"] for row in rows} == metrics["after"].keys() - {"all"}
    assert all(row["question"] and row["kind"] and row["weight"] == 1 for row in rows)


def test_answers_of_the_best_step_and_none_before(write_yaml, tmp_path):
    settings = ["training.best=loss", "evaluation.steps=1", "evaluation.before=false", "training.learning_rate=0.3"]
    metrics = train(load_recipe(write_yaml(), settings), Console(file=io.StringIO()))
    assert metrics["before"] == {} and metrics["held_out_loss"]["before"] is None
    assert metrics["best"]["step"] < 6
    assert sum(row["points"] for row in answers_of(tmp_path / "out")) == metrics["after"]["all"]["right"]
    model, processor = load_adapted(tmp_path / "out")
    recipe = load_recipe(tmp_path / "out" / "recipe.yaml", ["output_dir=" + str(tmp_path / "again")])
    collator, samples = held_out_collator(recipe, processor), open_source(recipe.data.eval, recipe.data)
    again = generate_answers(model, processor, collator.collate_prompts, samples, batch_size=6, max_new_tokens=2)
    assert again == [row["answer"] for row in answers_of(tmp_path / "out")]


def test_projectors_train_and_come_back(moka_run):
    model, _ = load_adapted(moka_run[0])
    projector = model.get_base_model().vision_projector
    pairs = zip(projector.original_module.parameters(), projector.modules_to_save["default"].parameters(), strict=True)
    assert all(not torch.equal(before, after) for before, after in pairs)


def test_lora_trains_alone_unless_asked(write_yaml, tmp_path):
    path = write_yaml("train_projectors: true\n")
    recipe = load_recipe(path, ["adapter.method=lora", "training.steps=null", "training.epochs=0.4"])
    assert train(recipe, Console(file=io.StringIO()))["steps"] == 2
    saved = load_file(tmp_path / "out" / "adapter_model.safetensors")
    assert all("lora_" in name and "text_model" in name for name in saved)
    assert load_adapted(tmp_path / "out")[0].peft_config["default"].peft_type == "LORA"


def test_targets_that_match_nothing_stop_the_run(write_yaml):
    with pytest.raises(ValueError, match="nothing_proj"):
        train(load_recipe(write_yaml(), ["adapter.target_modules=[nothing_proj]"]), Console(file=io.StringIO()))


def test_a_loss_that_is_no_number_ends_the_run(write_yaml):
    with pytest.raises(FloatingPointError, match=r"`loss` is nan at step \d: expected a number. Lower"):
        train(load_recipe(write_yaml(), ["training.learning_rate=1e30"]), Console(file=io.StringIO()))


def test_an_index_fills_rows(write_yaml, tmp_path):
    """Validated, indexed, packed, trained: an epoch takes as many steps as its samples fill rows."""
    recipe = write_yaml("  steps: 6\n", "  epochs: 1\n")
    index = tmp_path / "index.npz"
    named = f"data.train.index={index}"
    assert call(["validate", str(recipe), named]) == 2
    assert call(["validate", str(recipe), named, "--write-index", str(index), "--draw", "0"]) == 0
    console = Console(file=io.StringIO(), width=200)
    settings = [
        named,
        "training.packing=true",
        "training.max_length=256",
        "training.batch_size=1",
    ]
    metrics = train(load_recipe(recipe, settings), console)
    lengths = np.load(index)["lengths"]
    assert metrics["steps"] == len(pack_rows(lengths.tolist(), 256)) < len(lengths) / 3
    assert "rows/s" in console.file.getvalue()
    with pytest.raises(ValueError, match="index .* does not fit: expected the samples it was written for"):
        train(load_recipe(recipe, [*settings, "data.train.size=19", f"output_dir={tmp_path / 'other'}"]), console)


@pytest.mark.parametrize("changed", ["processes", "samples"])
def test_a_run_goes_on_with_what_its_steps_were_counted_by(write_yaml, tmp_path, monkeypatch, changed: str):
    rows = [{"messages": [{"role": "user", "content": "one"}, {"role": "assistant", "content": "1"}]}] * 5
    data = tmp_path / "rows.json"
    data.write_text(json.dumps(rows[:4]))
    settings = [f"data={{train: {{path: {data}}}}}", "training.steps=2"]
    train(load_recipe(write_yaml(), settings))
    (tmp_path / "out/metrics.json").unlink()
    if changed == "processes":
        monkeypatch.setattr(training_run, "world_size", lambda: 2)
    else:
        data.write_text(json.dumps(rows))
    with pytest.raises(ValueError, match=f"`resume` needs the {changed} the run began with: expected"):
        train(load_recipe(write_yaml(), [*settings, "resume=true"]))
