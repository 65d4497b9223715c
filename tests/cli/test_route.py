import json

import numpy as np
import pytest
import soundfile
from PIL import Image

from moka_peft import MokaConfig, RoutingSpec
from moka_peft.cli import call

RECIPE = """
model: {name: tiny-avt}
data:
  train: {name: av_digits, split: train}
training: {steps: 1}
output_dir: runs/route
"""


@pytest.fixture
def media(tmp_path):
    Image.fromarray(np.zeros((32, 128), np.uint8)).save(tmp_path / "strip.png")
    soundfile.write(tmp_path / "notes.wav", np.zeros(16_000, np.float32), 16_000)
    return ["--image", str(tmp_path / "strip.png"), "--audio", str(tmp_path / "notes.wav")]


def test_question_on_files_of_the_users_own(media, capsys):
    assert call(["route", "tiny-avt", *media, "Which digit is first?"]) == 0
    printed = capsys.readouterr().out
    assert "visual x16" in printed and "audio x25" in printed
    assert printed.count("attends to: Which digit is first?") == 2
    assert "41 of 41 media tokens attend to an instruction (100%)" in printed


def test_json_has_one_reading_per_token(media, capsys):
    assert call(["route", "tiny-avt", "--json", *media, "Which digit is first?"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["modalities"] == ["text", "visual", "audio"]
    assert len(shown["tokens"]) == len(shown["modality"]) == len(shown["turn"])
    said = "".join(token for token, turn in zip(shown["tokens"], shown["turn"], strict=True) if turn == 1)
    assert said.replace("<image>", "").replace("<audio>", "") == "Which digit is first?"
    assert (shown["media_tokens"], shown["media_tokens_with_keys"]) == (41, 41)
    assert [s["keys"] for s in shown["spans"] if s["modality"] == "audio"] == ["Which digit is first?"]


def test_adapter_folder_brings_its_own_spec(tmp_path, media, capsys):
    spec = RoutingSpec({"audio": (7,)}, user_open=((3,),), user_close=((1,),))
    MokaConfig(base_model_name_or_path="tiny-avt", routing=spec).save_pretrained(str(tmp_path))
    assert call(["route", str(tmp_path), *media, "--json", "Which digit is first?"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["modalities"] == ["text", "audio"] and shown["media_tokens"] == 25


def test_sample_of_a_recipe_without_its_answer_as_key(tmp_path, capsys):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(RECIPE, encoding="utf-8")
    png = tmp_path / "sample.png"
    assert call(["route", str(recipe), "--sample", "2", "--png", str(png), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    answer = shown["tokens"].index("<|assistant|>")
    assert not any(shown["turn"][answer:]) and shown["tokens"][answer + 1] not in ("", "<|end|>")
    assert shown["media_tokens"] == shown["media_tokens_with_keys"] > 0
    with Image.open(png) as image:
        assert image.width > 500


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["tiny-avt"], 2, "a question is missing"),
        (["recipe.yaml", "why?"], 2, "a recipe brings its own samples"),
        (["tiny-avt", "--image", "missing.png", "why?"], 1, "missing.png"),
        (["recipe.yaml", "--sample", "9999999"], 1, "`sample` 9999999 does not exist"),
    ],
)
def test_bad_usage_is_one_line(arguments, code, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
    assert call(["route", *arguments]) == code
    printed = capsys.readouterr().err
    assert message in printed and len(printed.splitlines()) == 1
