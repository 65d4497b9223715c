"""The data section of a recipe: what it may say, what contradicts itself, and a run that skips what is bad."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest
from PIL import Image

from moka_peft.data import MediaOptions
from moka_peft.training import RecipeError, load_recipe, open_collator, open_source, train
from moka_peft.training.recipe_data import Media, data_conflicts

VALID = "model: {name: tiny-avt}\noutput_dir: runs/x\ntraining: {steps: 10}\n"
ANSWER = {"role": "assistant", "content": "one"}


def problems(folder: Path, data: str) -> list[str]:
    path = folder / "recipe.yaml"
    path.write_text(f"{VALID}data: {data}\n")
    with pytest.raises(RecipeError) as caught:
        load_recipe(path)
    return [problem.removeprefix(f"{path}:4: ") for problem in caught.value.problems]


def test_media_section_is_media_options():
    assert Media().model_dump() == asdict(MediaOptions())


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        ("{train: {}}", "`data.train` names no single source: expected one of `name`, `path` and `hub`."),
        (
            "{train: {name: av_digits, hub: x/y}}",
            "`data.train` names no single source: expected one of `name`, `path` and `hub`.",
        ),
        ("{train: {hub: x/y, size: 3}}", "`data.train.size` has no meaning for a dataset of the hub. Remove it."),
        (
            "{train: {name: av_digits, streaming: true}}",
            "`data.train.streaming` has no meaning for generated samples. Remove it.",
        ),
        (
            "{train: {name: av_digits, split: dev}}",
            "`data.train.split` is wrong: expected 'train' or 'test', got 'dev'.",
        ),
        (
            "{train: {name: av_digits}, media: {video_frames: 0}}",
            "`data.media.video_frames` is wrong: expected greater than 0, got 0.",
        ),
        (
            "{train: {path: [gone.jsonl, gone.json]}}",
            "`data.train.path` is wrong: no such file: gone.jsonl, gone.json (relative paths start at the current "
            "folder).",
        ),
        (
            "{train: {name: av_digits}, on_bad_sample: warn}",
            "`data.on_bad_sample` is wrong: expected 'raise' or 'skip', got 'warn'.",
        ),
    ],
)
def test_contradictions_are_named(tmp_path: Path, data: str, problem: str):
    assert problems(tmp_path, data) == [problem]


def test_settings_reach_samples_and_collator(tmp_path: Path):
    row = {"messages": [{"role": "user", "content": "?"}, ANSWER]}
    (tmp_path / "a-0.jsonl").write_text(json.dumps(row))
    (tmp_path / "a-1.jsonl").write_text(json.dumps({"messages": 3}))
    source = f"{{path: '{tmp_path}/a-{{0..1}}.jsonl', format: openai, streaming: true}}"
    text = f"{VALID}data: {{train: {source}, on_bad_sample: skip, media: {{max_image_pixels: 100}}}}\n"
    (tmp_path / "recipe.yaml").write_text(text)
    plan = load_recipe(tmp_path / "recipe.yaml", ["training.max_length=7"])
    good, bad = open_source(plan.data.train, plan.data)
    assert good.answer == "one" and "expected a list of messages, got 3" in bad.problem  # type: ignore[attr-defined]
    processor = type("P", (), {"tokenizer": type("T", (), {"convert_tokens_to_ids": staticmethod(len)})})
    collator = open_collator(plan, processor)
    assert collator.media == MediaOptions(max_image_pixels=100) and collator.max_length == 7


def test_a_run_skips_bad_samples_and_lists_them(write_yaml: Callable[..., Path], tmp_path: Path, capsys):
    def row(image: str) -> str:
        parts = [{"type": "image", "image": image}, {"type": "text", "text": "?"}]
        return json.dumps({"messages": [{"role": "user", "content": parts}, ANSWER]})

    Image.new("RGB", (128, 32)).save(tmp_path / "good.png")
    (tmp_path / "torn.png").write_bytes((tmp_path / "good.png").read_bytes()[:60])
    names = ["good.png", "torn.png", "gone.png", "good.png"]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(row, names)))
    path = write_yaml("name: av_digits, split: train, size: 20", f"path: {tmp_path}/rows.jsonl")
    evaluated = path.read_text().replace("name: av_digits, split: test, size: 6", f"path: {tmp_path}/rows.jsonl")
    path.write_text(evaluated)
    short = ["training.steps=2", "data.on_bad_sample=skip"]
    metrics = train(load_recipe(path, short))
    assert metrics["steps"] == 2 and metrics["after"]["all"]["total"] == 2
    listed = [json.loads(line) for line in (tmp_path / "out" / "skipped.jsonl").read_text().splitlines()]
    assert [entry["where"].rsplit(", ")[1] for entry in listed] == ["row 2", "row 3"]
    assert "skipped 2 bad samples, listed in" in capsys.readouterr().out
    with pytest.raises(FileNotFoundError, match="row 3"):
        train(load_recipe(path, ["training.steps=2", "overwrite=true"]))


def test_a_run_without_a_readable_held_out_sample_is_refused(write_yaml: Callable[..., Path], tmp_path: Path):
    held_out = tmp_path / "held_out.jsonl"
    held_out.write_text(json.dumps({"messages": 3}))
    recipe = write_yaml("{name: av_digits, split: test, size: 6}", f"{{path: {held_out}}}")
    with pytest.raises(ValueError, match="`data.eval` has no sample left to score: all were skipped"):
        train(load_recipe(recipe, ["data.on_bad_sample=skip"]))


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (
            "{train: {path: gone.jsonl}, cache: c}",
            "`data.cache` is for generated samples: expected av_digits, spoken_digits, got gone.jsonl. Remove it.",
        ),
        (
            "{train: {name: av_digits}, cache: c, on_bad_sample: skip}",
            "`data.cache` has no meaning with `on_bad_sample: skip`. Remove one of them.",
        ),
        (
            "{train: {name: spoken_digits, images: noisy}}",
            "`data.train.images` has no meaning for generated samples. Remove it.",
        ),
        (
            "{train: {name: av_digits, shortcuts: 2}}",
            "`data.train.shortcuts` is wrong: expected less than or equal to 1, got 2.",
        ),
    ],
)
def test_problems_of_the_cache_and_of_harder_settings(tmp_path: Path, data: str, problem: str):
    assert problem in problems(tmp_path, data)


def test_packed_rows_are_refused_with_a_cache():
    raw = {"data": {"train": {"name": "av_digits"}, "cache": "c"}, "training": {"packing": True}}
    assert data_conflicts(raw) == [(("data", "cache"), "cannot hold packed rows. Remove it, or `training.packing`.")]
    assert data_conflicts(raw | {"training": {"packing": False}}) == []
