import json
from pathlib import Path

import numpy as np
import pytest

from moka_peft.cli import call
from moka_peft.data.generated import write_generated
from moka_peft.data.token_index import read_index
from moka_peft.training import load_processor, load_recipe, open_source


def test_a_valid_recipe_shows_its_tokens(recipe, capsys, monkeypatch):
    monkeypatch.setattr("moka_peft.training.model.load_model", lambda *_: 1 / 0)
    assert call(["validate", str(recipe)]) == 0
    shown = capsys.readouterr().out
    assert "data.train: 4 samples of " in shown
    assert "data.eval: 2 samples of " in shown
    assert "image" in shown
    assert shown.endswith("is valid\n")


def test_bad_samples_are_named(recipe, tmp_path, capsys):
    (tmp_path / "text.png").write_text("no picture")
    content = [{"type": "image", "image": "text.png"}, {"type": "text", "text": "What?"}]
    rows = [{"messages": [{"role": "user", "content": content}, {"role": "assistant", "content": "one"}]}] * 2
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "empty.json").write_text("[]")
    text = recipe.read_text().replace("name: av_digits, size: 4", f"path: {tmp_path}/rows.jsonl")
    text = text.replace("name: av_digits, split: test, size: 2", f"path: {tmp_path}/empty.json")
    (tmp_path / "recipe.yaml").write_text(text)
    assert call(["validate", str(tmp_path / "recipe.yaml")]) == 1
    shown = capsys.readouterr().err.splitlines()
    assert len(shown) == 4
    for position in (0, 1):
        assert shown[position].startswith(f"moka: data.train: sample {position} (rows-{position + 1}): {tmp_path}")
        assert f"rows.jsonl, row {position + 1}, `messages[0].content[0].image`: image " in shown[position]
    assert "empty.json` is empty" in shown[2]
    assert shown[3].startswith(f"moka: {tmp_path}/recipe.yaml is not valid: 3 problems")


def test_a_wrong_recipe_is_wrong_usage(recipe, capsys):
    assert call(["validate", str(recipe), "adapter.r=0"]) == 2
    assert "expected greater than 0, got 0" in capsys.readouterr().err


@pytest.fixture
def rows(recipe, tmp_path) -> Path:
    """A recipe whose training samples are two good rows around a bad one, of different lengths."""
    turns = [("Is it one?", "yes"), ("And two?", ""), ("A longer question, is it not?", "no")]
    rows = [
        {"messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]}
        for asked, answer in turns
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    text = recipe.read_text().replace("name: av_digits, size: 4", f"path: {tmp_path}/rows.jsonl, streaming: true")
    (tmp_path / "rows.yaml").write_text(text)
    return tmp_path / "rows.yaml"


def test_turns_and_samples_are_shown(recipe, capsys):
    assert call(["validate", str(recipe), "--draw", "2"]) == 0
    shown = capsys.readouterr().out
    assert "data.train: turns: in no turn " in shown and "turn 1 " in shown
    assert "(median " in shown and ", p95 " in shown
    assert "data.train, sample 0 (av_digits-train-0-0):" in shown and "sample 1 (av_digits" in shown
    assert "media tokens" in shown or "keys" in shown
    assert call(["validate", str(recipe), "--draw", "0"]) == 0
    assert ", sample 0" not in capsys.readouterr().out


def test_json_holds_all_numbers(rows, capsys):
    assert call(["validate", str(rows), "--json"]) == 1
    facts = json.loads(capsys.readouterr().out)
    train = facts["data"]["train"]
    assert (train["samples"], train["bad_samples"], facts["problems"]) == (3, 1, 1)
    assert train["length"]["min"] < train["length"]["median"] < train["length"]["max"]
    assert abs(sum(train["share_by_kind"].values()) - 1) < 1e-9
    assert abs(sum(train["share_by_turn"].values()) - 1) < 1e-9
    assert train["share_by_kind"]["image"] == 0 < facts["data"]["eval"]["share_by_kind"]["image"]
    assert "row 2, `messages[1].content`: is empty" in train["problems"][0]


def test_bad_samples_are_allowed_where_they_are_skipped(rows, capsys):
    assert call(["validate", str(rows), "data.on_bad_sample=skip"]) == 0
    shown = capsys.readouterr()
    assert shown.out.endswith("is valid; 1 bad samples will be skipped\n") and "row 2" in shown.err


def test_limit_and_workers(rows, recipe, capsys):
    assert call(["validate", str(rows), "--limit", "1"]) == 0
    assert "data.train: 1 samples (out of 3) of" in capsys.readouterr().out
    assert call(["validate", str(rows), "--json"]) == 1
    alone = capsys.readouterr().out
    assert call(["validate", str(rows), "--json", "--workers", "2"]) == 1
    assert capsys.readouterr().out == alone


def test_index_is_written_for_the_run(rows, capsys, tmp_path):
    index = tmp_path / "index.npz"
    assert call(["validate", str(rows), "--write-index", str(index), "data.on_bad_sample=skip"]) == 0
    plan = load_recipe(rows, [f"data.train.index={index}"])
    samples = open_source(plan.data.train, plan.data.model_copy(update={"on_bad_sample": "skip"}))
    lengths = read_index(index, samples, load_processor(plan.model.name))
    assert lengths[1] == 0 and 0 < lengths[0] < lengths[2]
    assert call(["validate", str(rows), "--write-index", str(index), "--limit", "1"]) == 2


def test_longest_sample_is_limited(rows, capsys):
    assert call(["validate", str(rows), "training.max_length=15"]) == 1
    assert "row 3, `messages`: sample has " in capsys.readouterr().err


def test_held_out_samples_may_be_longer_than_training_takes(rows, capsys):
    assert call(["validate", str(rows), "data.on_bad_sample=skip", "training.max_length=45", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)["data"]
    assert shown["train"]["length"]["max"] <= 45 < shown["eval"]["length"]["min"]
    assert shown["eval"]["bad_samples"] == 0


@pytest.fixture
def mixed(recipe, tmp_path) -> Path:
    """A recipe of two published datasets, of which the second lacks a recording."""
    write_generated("llava_instruct", tmp_path, samples=3)
    write_generated("audiocaps", tmp_path, samples=40)
    next(tmp_path.rglob("clip-0000_7.*")).unlink()
    names = ("llava_instruct", "audiocaps")
    sources = ", ".join(f"{{name: {name}, folder: {tmp_path}}}" for name in names)
    (tmp_path / "mixed.yaml").write_text(recipe.read_text().replace("{name: av_digits, size: 4}", f"[{sources}]"))
    return tmp_path / "mixed.yaml"


def test_every_source_is_reported_and_all_together(mixed, capsys):
    assert call(["validate", str(mixed), "data.on_bad_sample=skip", "--draw", "2"]) == 0
    shown = capsys.readouterr()
    assert "data.train.0 (llava_instruct): 3 samples of " in shown.out
    assert "data.train.0 (llava_instruct): media: 3 image\n" in shown.out
    assert "data.train.1 (audiocaps): 40 samples of " in shown.out and ", 1 of them bad (" in shown.out
    assert "data.train: 43 samples of " in shown.out and "data.train: media: 3 image, 39 audio\n" in shown.out
    assert "data.train, sample 1 (000000000001):" in shown.out
    assert "moka: data.train.1: sample 7: " in shown.err and "train.csv, row 8" in shown.err
    assert call(["validate", str(mixed)]) == 1
    capsys.readouterr()
    assert call(["validate", str(mixed), "data.on_bad_sample=skip", "--json"]) == 0
    train = json.loads(capsys.readouterr().out)["data"]["train"]
    assert (train["samples"], train["bad_samples"], train["media"]) == (43, 1, {"image": 3, "audio": 39})
    assert [source["samples"] for source in train["sources"]] == [3, 40]
    assert train["tokens"] == sum(source["tokens"] for source in train["sources"])


def test_a_source_that_cannot_be_opened_is_named_beside_the_others(mixed, capsys):
    (mixed.parent / "llava_instruct_150k.json").unlink()
    assert call(["validate", str(mixed)]) == 1
    shown = capsys.readouterr()
    assert "data.train.1 (audiocaps): 40 samples of " in shown.out and "data.train: " not in shown.out
    assert "moka: data.train.0: the annotation file of `llava_instruct` not found: expected `" in shown.err


def test_samples_are_drawn_over_the_whole_of_each_source(mixed, capsys):
    command = ["validate", str(mixed), "data.on_bad_sample=skip", "--sample", "5", "--json"]
    assert call(command) == 0
    first = json.loads(capsys.readouterr().out)["data"]
    assert [source["samples"] for source in first["train"]["sources"]] == [3, 5]
    assert [source["samples_in_all"] for source in first["train"]["sources"]] == [3, 40]
    assert call([*command, "--workers", "2"]) == 0
    assert json.loads(capsys.readouterr().out)["data"] == first
    assert call(["validate", str(mixed), "--sample", "5", "--limit", "5"]) == 2
    assert "leave one of them out" in capsys.readouterr().err
    assert call(["validate", str(mixed), "--sample", "5", "--write-index", "x.npz"]) == 2


def test_an_index_holds_all_sources(mixed, capsys, tmp_path):
    index, skip = tmp_path / "index.npz", "data.on_bad_sample=skip"
    named = mixed.read_text().replace("  eval:", f"  index: {index}\n  eval:")
    (tmp_path / "named.yaml").write_text(named)
    assert call(["validate", str(tmp_path / "named.yaml"), skip, "--write-index", str(index)]) == 0
    plan = load_recipe(tmp_path / "named.yaml", [skip])
    samples = open_source(plan.data.train, plan.data)
    lengths = read_index(plan.data.lengths_file(), samples, load_processor(plan.model.name))
    assert len(lengths) == 43 and lengths[10] == 0 and (np.delete(lengths, 10) > 0).all()
    assert call(["train", str(tmp_path / "named.yaml"), skip, f"output_dir={tmp_path}/out", "data.eval=null"]) == 0
