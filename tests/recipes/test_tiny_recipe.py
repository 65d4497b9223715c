"""What `--tiny` changes in a recipe, where it writes, and what it refuses."""

from pathlib import Path

import pytest

from moka_peft.cli import call
from moka_peft.training import RecipeError, load_recipe
from moka_peft.training.tiny.parts import tiny_image_processor
from moka_peft.training.tiny.places import MARK, made

from .conftest import PAPER, ROOT
from .test_texts import flat

QUICKSTART = ROOT / "recipes" / "quickstart.yaml"
CHANGED = {  # all that may differ in a recipe of the paper; nothing here chooses code
    "output_dir", "overwrite", "model.text", "model.vision.name", "model.vision.processor", "model.audio.name",
    "model.vision.projector.num_queries", "model.vision.projector.hidden_size",
    "model.vision.projector.num_attention_heads", "model.vision.projector.intermediate_size",
    "model.audio.projector.num_queries", "model.audio.projector.hidden_size",
    "model.audio.projector.num_attention_heads", "model.audio.projector.intermediate_size", "model.start_from",
    "data.train", "data.train.folder", "data.media.video_frames", "data.media.audio_segments",
    "training.steps", "training.epochs",
    "training.batch_size", "training.gradient_accumulation", "training.save_steps", "training.num_workers",
    "training.num_threads", "evaluation.batch_size", "evaluation.max_new_tokens",
}  # fmt: skip
RECIPE = """\
model: {text: meta-llama/Llama-2-7b-chat-hf, vision: {name: openai/clip-vit-large-patch14}}
data: {train: {name: a_okvqa, folder: data/coco}}
training: {epochs: 1}
"""


@pytest.fixture
def write(tmp_path: Path):
    """write(text) -> a recipe's path; its runs go to tmp_path/out."""

    def write(text: str) -> Path:
        (tmp_path / "recipe.yaml").write_text(f"{text}output_dir: {tmp_path}/out\n")
        return tmp_path / "recipe.yaml"

    return write


def problems_of(path: Path, *settings: str) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        load_recipe(path, settings, tiny=True)
    return caught.value.problems


@pytest.mark.parametrize(
    "path", [path for path in PAPER if "llama2" in path.stem], ids=lambda path: str(path.parent.name)
)
def test_only_sizes_and_places_change(path: Path, place: Path):
    settings = [f"output_dir={place}/{path.parent.name}", "model.start_from=null"]
    whole = flat(load_recipe(path, settings, without_files=True).model_dump())
    tiny = flat(load_recipe(path, settings, tiny=True).model_dump())
    assert {key for key in whole.keys() | tiny.keys() if whole.get(key) != tiny.get(key)} <= CHANGED
    for source, small in zip(whole.get("data.train", ()), tiny.get("data.train", ()), strict=True):
        assert {key for key in source if source[key] != small[key]} == {"folder"}


def test_a_tiny_run_lies_beside_the_run_and_leaves_its_folder_free(write, tmp_path: Path):
    recipe = load_recipe(write(RECIPE), tiny=True)
    assert recipe.output_dir == str(tmp_path / "tiny" / "out")
    assert {path.name for path in (tmp_path / "tiny").iterdir()} == {"parts", "data", MARK}
    assert not (tmp_path / "out").exists()
    assert recipe.model.text == str(tmp_path / "tiny" / "parts" / "meta-llama--Llama-2-7b-chat-hf")


def test_a_folder_that_is_not_a_tiny_one_is_left_alone(write, tmp_path: Path):
    run = tmp_path / "tiny" / "out"
    run.mkdir(parents=True)
    (run / "recipe.yaml").write_text("somebody's own")
    [problem] = problems_of(write(RECIPE))
    assert problem.startswith(f"`output_dir` has a folder beside it that --tiny did not make: {tmp_path}/tiny.")
    assert [path.name for path in (tmp_path / "tiny").rglob("*")] == ["out", "recipe.yaml"]


@pytest.mark.parametrize("name", ["parts", "data", ".", "one/.."])
def test_no_run_lies_where_the_shared_files_are(name: str, write, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    [problem] = problems_of(write(RECIPE), f"output_dir={name}")
    assert problem.startswith("`output_dir` has no name for a tiny run") and not (tmp_path / "tiny").exists()


@pytest.mark.parametrize("setting", ["data.train.streaming=true", "data.train.split=null", "data.train.split=val"])
def test_whatever_a_source_says_its_made_up_data_is_read(setting: str, write, capsys):
    assert call(["validate", str(write(RECIPE)), "--tiny", "--json", setting]) == 0
    assert '"samples": 4' in capsys.readouterr().out


@pytest.mark.parametrize("setting", ["data.index", "data.train.index"])
def test_lengths_of_the_whole_data_are_left_out(setting: str, write):
    data = load_recipe(path := write(RECIPE), [f"{setting}={path}"], tiny=True).data
    assert data.lengths_file() is None


def test_another_image_processor_is_not_taken_for_an_earlier_one(tmp_path: Path):
    first, second = tmp_path / "one" / "images", tmp_path / "two" / "images"
    for place, settings in ((first, '{"size": 224}'), (second, '{"size": {"height": 224}, "do_resize": false}')):
        place.mkdir(parents=True)
        (place / "preprocessor_config.json").write_text(settings)
    tiny = [tiny_image_processor(str(place), tmp_path) / "preprocessor_config.json" for place in (first, second)]
    assert [path.read_text() for path in tiny] == ['{"size": 28}', '{"do_resize": false, "size": {"height": 28}}']


def test_nothing_is_uploaded_and_an_earlier_tiny_run_is_replaced(write):
    path = write(RECIPE + "push_to_hub: somebody/something\n")
    recipe = load_recipe(path, tiny=True)
    assert recipe.push_to_hub is None and recipe.overwrite
    assert not load_recipe(path, ["resume=true"], tiny=True).overwrite


def test_what_is_tiny_already_stays(write):
    tiny = load_recipe(QUICKSTART, [f"output_dir={write('').parent}/out"], tiny=True)
    assert (tiny.model.name, tiny.data.train.size, tiny.evaluation.max_new_tokens) == ("tiny-avt", 8, 4)  # pyright: ignore


def test_the_quickstart_runs_tiny(tmp_path: Path):
    for _ in range(2):
        assert call(["train", str(QUICKSTART), "--tiny", f"output_dir={tmp_path}/quick"]) == 0
    assert (tmp_path / "tiny" / "quick" / "metrics.json").is_file()


def test_stage_2_says_which_run_it_needs(tmp_path: Path, capsys):
    stage2 = str(ROOT / "recipes" / "paper" / "vt" / "stage2_qwen2.yaml")
    start = f"model.start_from=[{tmp_path}/stage1]"
    assert call(["train", stage2, "--tiny", f"output_dir={tmp_path}/stage2", start]) == 2
    shown = capsys.readouterr().err
    assert shown == (
        f"moka: `model.start_from` has no tiny run: expected one in {tmp_path}/tiny/stage1. Run the recipe that writes "
        f"{tmp_path}/stage1 with --tiny first.\n"
    )


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("model.text=someone/else", "`model.text` has no tiny stand-in: expected one of meta-llama/Llama-2-7b-chat-hf"),
        ("model.vision.name=someone/else", "`model.vision` has no tiny stand-in: `name` is no architecture"),
        ("model={name: someone/else}", "`model.name` has no tiny stand-in: `name` is no architecture"),
        ("model={name: openai/whisper-large-v3}", "`model.name` has no tiny stand-in: expected a model of llava"),
        ("data.train={hub: someone/data}", "`data` has no tiny stand-in for the hub's someone/data"),
    ],
)
def test_what_has_no_stand_in_is_refused(setting: str, expected: str, write):
    [problem] = problems_of(write(RECIPE), setting)
    assert problem.startswith(expected)


def test_mistakes_are_reported_as_without_tiny(write):
    text = RECIPE.replace("epochs: 1", "epochs: 1, batch_size: many, lr: 1").replace(
        "a_okvqa,", "a_okvqa, split: tests,"
    )
    with pytest.raises(RecipeError) as caught:
        load_recipe(write(text), without_files=True)
    whole = caught.value.problems
    assert problems_of(write(text)) == whole and len(whole) == 3


def test_validate_looks_at_the_tiny_data(write, capsys):
    assert call(["validate", str(write(RECIPE)), "--tiny", "--json"]) == 0
    assert '"samples": 4' in capsys.readouterr().out


def test_of_two_that_make_the_same_one_wins(tmp_path: Path):
    def write(place: Path) -> None:
        place.mkdir()
        (place / "of").write_text("the later")
        (tmp_path / "part").mkdir()
        (tmp_path / "part" / "of").write_text("the first")

    assert (made(tmp_path / "part", write) / "of").read_text() == "the first"
    assert [path.name for path in tmp_path.iterdir()] == ["part"]


def test_nothing_is_left_of_what_could_not_be_made(tmp_path: Path):
    def write(place: Path) -> None:
        place.mkdir()
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space"):
        made(tmp_path / "part", write)
    assert list(tmp_path.iterdir()) == []
