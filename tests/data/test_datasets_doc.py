"""docs/datasets.md: a section for every dataset, trees that the loaders look for, snippets that a recipe takes."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from moka_peft.data import load_samples
from moka_peft.data.datasets import DATASETS
from moka_peft.data.generated import write_generated
from moka_peft.training.recipe_data import Data, data_conflicts

PAGE = (Path(__file__).parents[2] / "docs" / "datasets.md").read_text(encoding="utf-8")
SECTIONS = {part.partition("\n")[0].strip(): part for part in PAGE.split("\n## ")[1:]}
TREES: list[tuple[str, str, dict[str, Any]]] = [
    (name, label, {"reasoning": {"reasoning": True}, "part-2": {"part": 2}}.get(label, {}))
    for name, section in SECTIONS.items()
    for label in re.findall(r"```text ?(.*)\n", section)
]


def tree_of(name: str, label: str) -> list[tuple[re.Pattern[str], bool]]:
    """A pattern for each line of a tree, and whether what it stands for may be absent."""
    block = re.search(rf"```text ?{label}\n(.*?)```", SECTIONS[name], re.DOTALL)
    assert block
    lines = [line.partition("#") for line in block[1].splitlines()]
    return [(_pattern(path.strip().removeprefix("ROOT/")), "optional" in note) for path, _, note in lines]


def _pattern(path: str) -> re.Pattern[str]:
    text = re.escape(path).replace(r"\{", "(?:").replace(r"\}", ")").replace(",", "|").replace(r"\-", "-")
    return re.compile(re.sub(r"(?<=/)[A-Z]+(?:_[A-Z]+)*(?=[./\\]|$)", r"[^/]+?", text))


def test_every_dataset_has_a_section():
    assert list(SECTIONS) == list(DATASETS)
    for name, section in SECTIONS.items():
        assert all(f"\n- {word}: " in section for word in ("Get", "Licence", "Size", "Splits")), name


@pytest.mark.parametrize("name", DATASETS)
def test_splits_and_options_are_named(name: str):
    dataset = DATASETS[name]
    if name != "librispeech":  # says "the folders' names", which its tree shows
        named = re.search(r"- Splits: (.*(?:\n  .*)*)", SECTIONS[name])
        assert named and set(re.findall(r"`(\w+)`", named[1])) == set(dataset.splits)
    assert all(f"{option}: " in SECTIONS[name] for option in dataset.options)


@pytest.mark.parametrize(("name", "label", "options"), TREES)
def test_trees_are_what_the_loader_reads(tmp_path: Path, name: str, label: str, options: dict[str, Any]):
    splits = DATASETS[name].splits[:1] if "reasoning" in options and name == "music_avqa" else DATASETS[name].splits
    for split in splits:
        write_generated(name, tmp_path, samples=6, split=split, **options)
        assert len(load_samples({"name": name, "folder": str(tmp_path), "split": split, **options})) >= 6
    files = [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()]
    tree = tree_of(name, label)
    assert [file for file in files if not any(pattern.fullmatch(file) for pattern, _ in tree)] == []
    absent = [pattern.pattern for pattern, optional in tree if not any(map(pattern.fullmatch, files)) and not optional]
    assert absent == []


@pytest.mark.parametrize("name", DATASETS)
def test_snippets_are_valid(tmp_path: Path, monkeypatch, name: str):
    (snippet,) = re.findall(r"```yaml\n(.*?)```", SECTIONS[name], re.DOTALL)
    data = yaml.safe_load(snippet)["data"]
    monkeypatch.chdir(tmp_path)
    for source in (data["train"], data.get("eval", data["train"])):
        (tmp_path / source["folder"]).mkdir(parents=True, exist_ok=True)
    assert data_conflicts({"data": data}) == []
    assert Data.model_validate(data).train.name == name  # type: ignore[union-attr]


def test_the_first_snippet_is_valid(tmp_path: Path, monkeypatch):
    snippet = re.search(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    assert snippet
    data = yaml.safe_load(snippet[1])["data"]
    monkeypatch.chdir(tmp_path)
    Path("lengths.npz").touch()
    for source in data["train"]:
        Path(source["folder"]).mkdir(parents=True)
    assert data_conflicts({"data": data}) == []
    assert Data.model_validate(data).order == "shuffled"
