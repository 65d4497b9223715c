"""The authors' checkpoints from the command line."""

import json
from pathlib import Path

import pytest
import torch
import yaml
from peft import PeftModel, get_peft_model

from moka_peft import MokaConfig
from moka_peft.cli import call
from moka_peft.composite import load_tiny_avt, tiny_avt_processor
from moka_peft.data import MediaOptions
from moka_peft.training import load_adapted, load_model
from moka_peft.training.reading import media_of

QFORMER = {"type": "qformer", "num_queries": 3, "hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 12}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe for a composite, and an adapter with a projector on it, exported by the command."""
    folder = tmp_path_factory.mktemp("place")
    model, _ = load_tiny_avt()
    processor = tiny_avt_processor()
    processor.tokenizer.chat_template = processor.chat_template
    for part, files in {
        "text": (model.text_model, processor.tokenizer),
        "vision": (model.vision_encoder, processor.image_processor),
    }.items():
        for file in files:
            file.save_pretrained(folder / part)
    vision = {"name": str(folder / "vision"), "projector": QFORMER}
    section = {"text": str(folder / "text"), "vision": vision}
    (folder / "recipe.yaml").write_text(yaml.safe_dump({"model": {**section, "start_from": ["never/run"]}}))
    base, _ = load_model(**section)
    config = MokaConfig(r=2, modalities=("text", "visual"), modules_to_save=["vision_projector"])
    adapted = get_peft_model(base, config)
    torch.manual_seed(0)
    for weight in adapted.parameters():
        if weight.requires_grad:
            torch.nn.init.normal_(weight, std=0.1)
    adapted.save_pretrained(folder / "ours")
    assert call(["export-authors-adapter", str(folder / "ours"), str(folder / "theirs")]) == 0
    return folder


def import_to(place: Path, target: Path, *options: str) -> int:
    return call(["import-authors-adapter", str(place / "theirs"), str(target), *options])


def test_an_export_says_what_it_wrote(place, tmp_path, capsys):
    assert call(["export-authors-adapter", str(place / "ours"), str(tmp_path / "out"), "--form", "vt"]) == 0
    shown = capsys.readouterr().out
    assert "form: vt, 4 layers x down_proj, gate_proj" in shown
    assert "zeros, which their code never reads: 28" in shown
    files = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert files == ["adapter_config.json", "adapter_model.bin", "non_lora_trainables.bin"]


def test_an_import_says_what_it_found(place, tmp_path, capsys):
    assert import_to(place, tmp_path / "out", "--base", "some/model") == 0
    shown = capsys.readouterr().out
    for line in (
        "form: vt, 4 layers x down_proj",
        "adapter: r 2, scaling 4 after the attention, lambda 1, instruction span tokens",
        "projectors: vision_projector",
        "dropped, unused: base_model.model.model.language_model.layers.*.mlp.down_proj.lora_B.image.weight (4 times)",
    ):
        assert line in shown
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert (config["peft_type"], config["base_model_name_or_path"]) == ("MOKA", "some/model")
    assert config["modules_to_save"] == ["vision_projector"]
    assert import_to(place, tmp_path / "out") == 1
    assert "is not empty" in capsys.readouterr().err
    assert import_to(place, tmp_path / "out", "--overwrite") == 0


def test_with_its_recipe_an_import_answers(place, tmp_path, image, capsys):
    assert import_to(place, tmp_path / "out", "--recipe", str(place / "recipe.yaml")) == 0
    adapted, _ = load_adapted(tmp_path / "out")
    section = yaml.safe_load((tmp_path / "out" / "recipe.yaml").read_text())["model"]
    assert "start_from" not in section  # the import brings the projectors
    base, _ = load_model(**section)
    ours = PeftModel.from_pretrained(base, str(place / "ours")).state_dict()
    trained = {name: weight for name, weight in adapted.state_dict().items() if ".original_module." not in name}
    assert all(torch.equal(ours[name], weight) for name, weight in trained.items())
    capsys.readouterr()
    ask = ["generate", "--adapter", str(tmp_path / "out"), "--image", str(image), "--max-new-tokens", "2", "Is it one?"]
    assert call(ask) == 0
    assert capsys.readouterr().out.count("\n") == 1


def test_an_import_keeps_how_its_recipe_decodes_media(place, tmp_path, capsys):
    recipe = yaml.safe_load((place / "recipe.yaml").read_text())
    recipe["data"] = {"train": {"name": "ave", "folder": "data"}, "media": {"video_frames": 10}}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    assert import_to(place, tmp_path / "out", "--recipe", str(tmp_path / "recipe.yaml")) == 0
    assert media_of(tmp_path / "out") == MediaOptions(video_frames=10)
    recipe["data"]["media"] = {"frames": 10}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    assert import_to(place, tmp_path / "not", "--recipe", str(tmp_path / "recipe.yaml")) == 1
    assert "`data.media`" in capsys.readouterr().err


def test_the_layers_may_be_elsewhere(place, tmp_path):
    from safetensors.torch import load_file

    assert import_to(place, tmp_path / "out", "--layers-under", "model.language_model") == 0
    keys = [key for key in load_file(tmp_path / "out" / "adapter_model.safetensors") if "moka_B" in key]
    assert all(key.startswith("base_model.model.model.language_model.layers.") for key in keys)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda model: model["vision"].update(projector={**QFORMER, "num_layers": 3}), "`num_layers` of `model.vision"),
        (lambda model: model["vision"].update(projector={**QFORMER, "num_queries": 4}), "is 4: expected 3"),
        (lambda model: model["vision"].pop("projector"), "`type` of `model.vision.projector` is None"),
        (lambda model: model.update(audio=model.pop("vision")), "has no `model.vision`, but the source holds a vision"),
        (lambda model: model.update(text="./nowhere"), "`model.text`: "),
        (lambda model: model.update(name="tiny-avt"), "names no single model"),
        (lambda model: model.clear(), "names no single model"),
    ],
)
def test_a_recipe_that_does_not_fit(place, tmp_path, change, message, capsys):
    recipe = yaml.safe_load((place / "recipe.yaml").read_text())
    change(recipe["model"])
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    assert import_to(place, tmp_path / "out", "--recipe", str(tmp_path / "recipe.yaml")) == 1
    shown = capsys.readouterr().err
    assert message in shown and shown.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_wrong_usage(place, tmp_path, capsys):
    assert call(["export-authors-adapter", str(place / "ours"), str(tmp_path / "out"), "--form", "st"]) == 2
    assert "--form st: expected one of avt, vt" in capsys.readouterr().err
    assert call(["export-authors-adapter", str(place / "ours"), str(tmp_path / "out"), "--form", "avt"]) == 1
    assert "expected True for the form 'avt'" in capsys.readouterr().err
    assert call(["import-authors-adapter", str(tmp_path / "gone"), str(tmp_path / "out")]) == 1
    assert "holds no checkpoint of the authors' code" in capsys.readouterr().err
    (tmp_path / "recipe.yaml").write_text("- no recipe")
    assert import_to(place, tmp_path / "out", "--recipe", str(tmp_path / "recipe.yaml")) == 1
    assert "has no section `model`" in capsys.readouterr().err
