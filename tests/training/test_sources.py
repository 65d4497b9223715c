"""Recipes with published datasets and with several sources: what they may say, and what a run reads."""

from pathlib import Path

import pytest
import yaml

from moka_peft.data.generated import write_generated
from moka_peft.training import RecipeError, load_recipe, open_source, train
from moka_peft.training.card import _data
from moka_peft.training.reading import plan_batches
from moka_peft.training.recipe_file import write_recipe

pytestmark = pytest.mark.usefixtures("without_plots")

VALID = "model: {name: tiny-avt}\noutput_dir: runs/x\ntraining: {steps: 10, batch_size: 2}\n"
SETS = ("music_avqa", "llava_instruct", "audiocaps")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    for name in SETS:
        write_generated(name, folder, samples=3)
    return folder


def recipe(folder: Path, data: str) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(f"{VALID}data: {data}\n")
    return path


def problems(folder: Path, data: str) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        load_recipe(recipe(folder, data))
    return [problem.partition("yaml:4: ")[2] for problem in caught.value.problems]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ("{train: {name: ave}}", ["`data.train` has no `folder`: expected the folder of ave. Set it."]),
        (
            "{train: {name: ave, folder: HERE, split: dev, turns: single, size: 3}}",
            [
                "`data.train.split` is wrong: expected train or val or test or all, got dev. Correct it.",
                "`data.train.turns` has no meaning for `ave`. Remove it.",
                "`data.train.size` has no meaning for `ave`. Remove it.",
            ],
        ),
        (
            "{train: {name: av_digits, reasoning: true}}",
            ["`data.train.reasoning` has no meaning for generated samples. Remove it."],
        ),
        (
            "{train: {name: llava_instruct, folder: HERE, turns: many}}",
            ["`data.train.turns` is wrong: expected 'multi' or 'single', got 'many'."],
        ),
        (
            "{train: {name: ave, folder: nowhere}}",
            ["`data.train.folder` is wrong: no such folder: nowhere (relative paths start at the current folder)."],
        ),
        (
            "{train: {name: ave, folder: HERE}, media: {video_sound: true}}",
            ["`data.media.video_sound` adds a second recording to the videos of `ave`, which have theirs. Remove it."],
        ),
        (
            "{train: {name: av_digits}, media: {audio_segments: 0}}",
            ["`data.media.audio_segments` is wrong: expected greater than 0, got 0."],
        ),
        ("{train: []}", ["`data.train` is wrong: expected a source or several, got none."]),
        ("{train: 3}", ["`data.train` is wrong: expected a section of keys, got 3."]),
        (
            "{train: {name: av_digits}, order: sorted}",
            ["`data.order` is wrong: expected 'shuffled' or 'in_order', got 'sorted'."],
        ),
        (
            "{train: {name: av_digits}, index: gone.npz}",
            ["`data.index` is wrong: no such file: gone.npz (relative paths start at the current folder)."],
        ),
        (
            "{train: {name: av_digits, index: recipe.yaml}, index: recipe.yaml}",
            ["`data.index` is set beside `data.train.index`. Keep one of them."],
        ),
    ],
)
def test_mistakes_are_named(tmp_path: Path, monkeypatch, data: str, expected: list[str]):
    monkeypatch.chdir(tmp_path)
    assert problems(tmp_path, data.replace("HERE", str(tmp_path))) == expected


def test_mistakes_in_a_list_are_reported_together_with_their_places(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = f"""\
{VALID}data:
  train:
    - {{name: av_digits, size: 0}}
    - {{name: nothing}}
    - name: ave
      folder: {tmp_path}
      spilt: train
      index: recipe.yaml
    - {{path: gone.jsonl}}
    - {{hub: a/b, part: 2}}
"""
    (tmp_path / "recipe.yaml").write_text(text)
    with pytest.raises(RecipeError) as caught:
        load_recipe("recipe.yaml")
    found = [problem.removeprefix("recipe.yaml:") for problem in caught.value.problems]
    assert found[0] == "6: `data.train.0.size` is wrong: expected greater than 0, got 0."
    assert found[1].startswith("7: `data.train.1.name` is wrong: expected 'av_digits', ")
    assert found[2] == "10: `data.train.2.spilt` is not a recipe key. Did you mean `data.train.split`?"
    assert found[3] == "11: `data.train.2.index` has no meaning in a list: an index holds all. Set `data.index`."
    assert found[4].startswith("12: `data.train.3.path` is wrong: no such file: gone.jsonl")
    assert found[5] == "13: `data.train.4.part` has no meaning for a dataset of the hub. Remove it."
    assert len(found) == 6


def test_a_list_is_written_and_read_back(tmp_path: Path, data: Path):
    listed = ", ".join(f"{{name: {name}, folder: {data}}}" for name in SETS)
    plan = load_recipe(
        recipe(tmp_path, f"{{train: [{listed}], eval: [{{name: av_digits, size: 2}}], order: in_order}}")
    )
    write_recipe(plan, tmp_path / "written.yaml")
    assert load_recipe(tmp_path / "written.yaml") == plan
    assert yaml.safe_load((tmp_path / "written.yaml").read_text())["data"]["train"][0] == {
        "name": SETS[0],
        "folder": str(data),
    }
    told = dict(_data(plan.model_dump()["data"]))
    assert list(told) == [f"train, source {i} of 3" for i in (1, 2, 3)] + [
        "eval, source 1 of 1",
        "order of the sources in an epoch",
    ]
    assert told["train, source 2 of 3"]["name"] == "llava_instruct"


@pytest.mark.parametrize("order", ["shuffled", "in_order"])
def test_batches_follow_the_order(tmp_path: Path, data: Path, order: str):
    listed = ", ".join(f"{{name: {name}, folder: {data}}}" for name in SETS)
    plan = load_recipe(recipe(tmp_path, f"{{train: [{listed}], order: {order}}}"), ["seed=1"])
    samples = open_source(plan.data.train, plan.data)
    batches = plan_batches(plan, samples, None).batches(0, 0)  # type: ignore[arg-type]
    sources = [[i // 3 for i in batch] for batch in batches]
    assert sorted(i for batch in batches for i in batch) == list(range(9))
    assert (sources == [[0, 0], [0], [1, 1], [1], [2, 2], [2]]) == (order == "in_order")


def test_a_run_goes_through_its_sources_in_order(write_yaml, tmp_path: Path, data: Path):
    listed = ", ".join(f"{{name: {name}, folder: {data}}}" for name in SETS)
    path = write_yaml("train: {name: av_digits, split: train, size: 20}", f"train: [{listed}]\n  order: in_order")
    short = ["training.steps=3", "training.batch_size=1", "training.save_steps=3", "data.eval=null"]
    segments = ["data.media.audio_segments=2", "data.media.video_frames=2"]
    metrics = train(load_recipe(path, [*short, *segments]))
    assert metrics["steps"] == 3
    card = (tmp_path / "out" / "README.md").read_text()
    assert "- train, source 1 of 3: `name: music_avqa`" in card and "`order: in_order`" in card
    assert "`audio_segments: 2`" in card
