import json
import shutil
from pathlib import Path

import pytest
import yaml
from PIL import Image

from moka_peft.cli import call

NAMES = ["attention", "dominance", "modalities", "scales", "subspaces"]


@pytest.fixture(scope="module")
def lora(recipe: Path) -> Path:
    folder = recipe.parent / "lora"
    assert call(["train", str(recipe), "adapter.method=lora", f"output_dir={folder}"]) == 0
    return folder


def test_all_analyses_of_a_run(adapter, tmp_path, capsys):
    assert call(["analyze", str(adapter), "--samples", "1", "--scales", "0,1", "--out", str(tmp_path / "out")]) == 0
    shown = capsys.readouterr().out
    for name in NAMES:
        assert f"\n{name}: " in f"\n{shown}"
        assert json.loads((tmp_path / "out" / f"{name}.json").read_text())["adapter"]["type"] == "MOKA"
        with Image.open(tmp_path / "out" / f"{name}.png") as picture:
            assert min(picture.size) > 200
    assert len(json.loads((tmp_path / "out" / "scales.json").read_text())["rows"]) == 2
    assert json.loads((tmp_path / "out" / "modalities.json").read_text())["samples"] == 1


def test_what_does_not_apply_is_left_out(lora, capsys):
    assert call(["analyze", str(lora)]) == 0
    shown = capsys.readouterr().out
    for name in ("attention", "subspaces", "scales"):
        assert f"\n{name}: left out. `model`: its adapter" in f"\n{shown}"
    assert sorted(path.name for path in (lora / "analysis").iterdir()) == [
        "dominance.json", "dominance.png", "modalities.json", "modalities.png",
    ]  # fmt: skip


def test_what_was_asked_for_and_does_not_apply_is_an_error(lora, tmp_path, capsys):
    assert call(["analyze", str(lora), "modalities", "subspaces", "--out", str(tmp_path / "out")]) == 1
    assert "no A of its own for each modality" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()  # said before anything was measured


def test_samples_of_a_file(adapter, image, audio, tmp_path, capsys):
    parts = [{"type": "image", "image": str(image)}, {"type": "audio", "audio": str(audio)}]
    rows = [
        {"messages": [
            {"role": "user", "content": [*parts, {"type": "text", "text": text}]},
            {"role": "assistant", "content": "one"},
        ]}
        for text in ("Is it one?", "Which note follows?")
    ]  # fmt: skip
    (tmp_path / "asked.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = ["--data", str(tmp_path / "asked.jsonl"), "--out", str(tmp_path / "out"), "--layer", "2"]
    assert call(["analyze", str(adapter), "attention", *options, "--question", "1"]) == 0
    words = json.loads((tmp_path / "out" / "attention.json").read_text())["words"]
    assert [word["text"] for word in words] == ["Which", "note", "follows", "?"]
    assert call(["analyze", str(adapter), "attention", *options, "--question", "2"]) == 1
    assert "`question` 2 does not exist: there are 2 held-out samples" in capsys.readouterr().err


def test_a_run_without_held_out_samples_needs_a_file(adapter, tmp_path, capsys):
    folder = shutil.copytree(adapter, tmp_path / "run", ignore=shutil.ignore_patterns("checkpoints", "analysis"))
    recipe = yaml.safe_load((folder / "recipe.yaml").read_text())
    del recipe["data"]["eval"]
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    assert call(["analyze", str(folder), "attention"]) == 1
    assert "has no held-out samples. Give a file of some: --data FILE." in capsys.readouterr().err
    assert call(["analyze", str(folder), "subspaces"]) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["attentions"], "attentions: expected some of modalities, dominance, attention, subspaces, scales"),
        (["scales", "--scales", "0;1"], "0;1: expected numbers, as 0,0.5,1"),
        (["--samples", "0"], "--samples"),
    ],
)
def test_wrong_usage(adapter, arguments, message, capsys):
    assert call(["analyze", str(adapter), *arguments]) == 2
    assert message in capsys.readouterr().err
