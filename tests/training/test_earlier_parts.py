"""Stage 1 trains projectors and no adapter; stage 2 begins with them; both folders stand alone."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from moka_peft.cli import call
from moka_peft.composite import load_tiny_avt, tiny_avt_processor
from moka_peft.data.digit_strips import draw_strip
from moka_peft.training import RecipeError, load_adapted, load_recipe, train
from moka_peft.training.earlier_parts import FILE, WEIGHTS, keep_parts, restore_parts

pytestmark = pytest.mark.usefixtures("without_plots")

PROJECTOR = "vision_projector."


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of tiny parts, each saved as its own library saves it, and of captions."""
    folder, processor = tmp_path_factory.mktemp("place"), tiny_avt_processor()
    model, _ = load_tiny_avt()
    processor.tokenizer.chat_template = processor.chat_template
    for part, files in {
        "text": (model.text_model, processor.tokenizer),
        "vision": (model.vision_encoder, processor.image_processor),
    }.items():
        for file in files:
            file.save_pretrained(folder / part)
    rng, rows = np.random.default_rng(0), []
    for index in range(4):
        draw_strip(rng.integers(0, 100, size=4), rng).convert("RGB").save(folder / f"{index}.png")
        talk = [{"from": "human", "value": "<image>\nRead the digits."}, {"from": "gpt", "value": f"{index} {index}"}]
        rows.append({"id": index, "image": f"{index}.png", "conversations": talk})
    (folder / "captions.json").write_text(json.dumps(rows))
    return folder


@pytest.fixture(scope="module")
def write(place: Path):
    """write(out, model, **sections) -> a recipe on the parts, which trains their projector."""

    def build(out: str, model: dict | None = None, **sections):
        vision = {"name": str(place / "vision"), "projector": {"type": "mlp", "hidden_size": 16}}
        recipe = {
            "model": {"text": str(place / "text"), "vision": vision, **(model or {})},
            "data": {"train": {"path": str(place / "captions.json")}},
            "training": {"steps": 2, "batch_size": 2, "learning_rate": 0.01, "num_threads": 1},
            "train": {"projectors": True},
            "output_dir": str(place / out),
            **sections,
        }
        (place / f"{out}.yaml").write_text(yaml.safe_dump(recipe))
        return load_recipe(place / f"{out}.yaml")

    return build


@pytest.fixture(scope="module")
def stage1(place: Path, write) -> Path:
    train(write("stage1", adapter={"method": "none"}))
    return place / "stage1"


def projector_of(model) -> dict[str, torch.Tensor]:
    weights = model.get_base_model().state_dict()
    return {name: weight for name, weight in weights.items() if name.startswith(PROJECTOR)}


def test_stage_1_trains_and_saves_the_projector_alone(stage1: Path, place: Path):
    saved = load_file(stage1 / WEIGHTS)
    assert saved and all(name.startswith(f"base_model.model.{PROJECTOR}") for name in saved)
    assert not (stage1 / FILE).exists()
    adapted, _ = load_adapted(stage1)
    text, own = load_file(place / "text" / "model.safetensors"), adapted.get_base_model().text_model.state_dict()
    assert all(torch.equal(own[name][: len(weight)], weight) for name, weight in text.items())


@pytest.mark.parametrize("method", ["moka", "lora"])
def test_stage_2_begins_with_them_and_its_folder_stands_alone(stage1: Path, place: Path, write, method: str):
    model = {"start_from": [str(stage1)]}
    out = place / f"stage2_{method}"
    train(write(out.name, model, adapter={"method": method, "r": 2}, train={"projectors": False}))
    shutil.move(place / "stage1", place / "elsewhere")
    try:
        adapted, _ = load_adapted(out)
    finally:
        shutil.move(place / "elsewhere", place / "stage1")
    expected = {name.removeprefix("base_model.model."): weight for name, weight in load_file(stage1 / WEIGHTS).items()}
    own = projector_of(adapted)
    assert own.keys() == expected.keys()
    assert all(torch.equal(own[name], weight) for name, weight in expected.items())


def test_stage_2_trains_them_on(stage1: Path, place: Path, write):
    train(write("trained_on", {"start_from": [str(stage1)]}, adapter={"method": "moka", "r": 2}))
    before, after = load_file(stage1 / WEIGHTS), load_file(place / "trained_on" / WEIGHTS)
    changes = [(after[name] - weight).abs().max() for name, weight in before.items()]
    assert all(0 < change < 0.1 for change in changes)  # two steps of at most 0.01: it began there
    assert not (place / "trained_on" / FILE).exists()


def test_fresh_projectors_that_do_not_train_are_kept(place: Path, write):
    train(write("frozen", adapter={"method": "moka", "r": 2}, train={"projectors": False}))
    weights = load_file(place / "frozen" / FILE)
    adapted, _ = load_adapted(place / "frozen")
    assert weights and all(torch.equal(projector_of(adapted)[name], weight) for name, weight in weights.items())


def test_what_an_earlier_run_began_with_comes_along(stage1: Path, place: Path, write):
    """Parts one after another: the second run trains another part, and keeps the first one's."""
    norm = {"method": "none", "modules_to_save": ["text_model.model.norm"]}
    train(write("second", {"start_from": [str(stage1)]}, adapter=norm, train={"projectors": False}))
    lora = {"method": "lora", "r": 2}
    train(write("third", {"start_from": [str(place / "second")]}, adapter=lora, train={"projectors": False}))
    adapted, _ = load_adapted(place / "third")
    for run in ("stage1", "second"):
        for name, weight in load_file(place / run / WEIGHTS).items():
            assert torch.equal(adapted.get_base_model().state_dict()[name.removeprefix("base_model.model.")], weight)


def test_statistics_of_a_tower_are_kept(tmp_path: Path):
    trained, fresh = torch.nn.BatchNorm1d(2), torch.nn.BatchNorm1d(2)
    trained(torch.randn(8, 2) + 3)
    keep_parts(SimpleNamespace(get_base_model=lambda: trained), list(trained.state_dict()), tmp_path)
    restore_parts(fresh, tmp_path)
    assert all(torch.equal(weight, fresh.state_dict()[name]) for name, weight in trained.state_dict().items())


def test_two_runs_of_one_part(stage1: Path, place: Path, write):
    shutil.copytree(stage1, place / "again")
    with pytest.raises(ValueError, match="again and .*stage1 both trained `vision_projector.*Keep one of them"):
        train(write("twice", {"start_from": [str(stage1), str(place / "again")]}))


def test_parts_of_another_model(stage1: Path, place: Path, write, tmp_path: Path):
    shutil.copytree(stage1, tmp_path / "other")
    weights = load_file(stage1 / WEIGHTS)
    save_file({name: weight[:1].clone() for name, weight in weights.items()}, tmp_path / "other" / WEIGHTS)
    with pytest.raises(ValueError, match=r"was trained on another model: its `vision_projector\.\S+` is \[1"):
        train(write("misfit", {"start_from": [str(tmp_path / "other")]}))


def test_a_run_without_parts(place: Path, write, tiny_folder: Path):
    adapter = {"method": "lora", "r": 2, "target_modules": ["q_proj"]}
    train(write("plain", adapter=adapter, train={"projectors": False}))
    with pytest.raises(ValueError, match="plain holds an adapter of type .*LORA and no part that was trained in full"):
        train(write("from_plain", {"start_from": [str(place / "plain")]}))


@pytest.mark.parametrize(
    ("model", "sections", "problem"),
    [
        ({}, {"adapter": {"method": "none"}, "train": {}}, "adapter.method` is none and nothing else trains"),
        ({}, {"adapter": {"method": "none", "r": 4}}, "adapter.r` has no meaning for `method: none`"),
        ({"name": "tiny-avt"}, {}, "`model` names no single model: expected `name`, or `text`"),
        ({"vision": None}, {}, "model.text` stands alone: expected `vision`, `audio` or both"),
        ({"text": None, "name": "tiny-avt"}, {}, "model.vision` has no meaning beside `name`"),
        ({"revision": "main"}, {}, "model.revision` has no meaning beside `text`"),
        ({"start_from": ["nowhere"]}, {}, "no finished run: nowhere has no adapter_model.safetensors"),
        ({"audio": {"name": "beats.pt"}}, {}, "no such file: beats.pt"),
        ({"audio": {"segment_seconds": 1.0}}, {}, "model.audio.name` is missing"),
        ({"vision": {"name": "./none"}}, {}, "no such folder: ./none"),
    ],
)
def test_contradictions(write, model: dict, sections: dict, problem: str):
    with pytest.raises(RecipeError, match=problem):
        write("wrong", model, **sections)


def test_parts_are_looked_at_without_their_weights(stage1: Path, place: Path, write, monkeypatch, capsys):
    write("looked_at")
    monkeypatch.setattr("moka_peft.composite.build.load_encoder", lambda *_: pytest.fail("weights were loaded"))
    recipe, out, image = str(place / "looked_at.yaml"), str(stage1), str(place / "0.png")
    assert call(["validate", recipe]) == 0
    assert call(["route", recipe]) == 0
    drawn = capsys.readouterr().out.split(" is valid")[1]
    assert call(["route", out, "--image", image, "Read the digits."]) == 0
    assert "visual" in drawn and "visual" in capsys.readouterr().out


def test_stage_1_on_several_sources_goes_on_where_it_was_killed(place: Path, write):
    """A written recipe lacks the keys that nobody set; those of sources in a list must not count as a change."""
    settings = {"adapter": {"method": "none"}, "data": {"train": [{"path": str(place / "captions.json")}] * 2}}
    settings["training"] = {"steps": 2, "batch_size": 2, "num_threads": 1, "save_steps": 1}
    train(write("killed", **settings))
    whole = load_file(place / "killed" / WEIGHTS)
    for left in ("metrics.json", WEIGHTS):
        (place / "killed" / left).unlink()
    shutil.rmtree(place / "killed" / "checkpoints" / "checkpoint-2")
    assert train(write("killed", **settings, resume=True))["steps"] == 2
    resumed = load_file(place / "killed" / WEIGHTS)
    assert all(torch.equal(resumed[name], weight) for name, weight in whole.items())
    (place / "killed" / "metrics.json").unlink()
    settings["data"]["train"][1] = {"path": str(place / "captions.json"), "format": "llava"}
    with pytest.raises(ValueError, match=r"it differs \(data.train.1.format: None -> llava\)"):
        train(write("killed", **settings, resume=True))


def test_a_moved_chat_template(place: Path, write):
    template = place / "template.jinja"
    template.write_text(tiny_avt_processor().chat_template + "{# own #}")
    train(write("templated", {"chat_template": str(template)}, adapter={"method": "none"}))
    template.unlink()
    _, processor = load_adapted(place / "templated")
    assert processor.chat_template.endswith("{# own #}")


def test_a_run_on_parts_answers(stage1: Path, place: Path, capsys):
    asked = ["--image", str(place / "0.png"), "--max-new-tokens", "2", "Read the digits."]
    assert call(["generate", "--adapter", str(stage1), *asked]) == 0
    assert capsys.readouterr().out.strip()
