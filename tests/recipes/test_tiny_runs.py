"""Every recipe of the paper's scenarios from end to end, tiny: both stages, what trained, what did not, an answer."""

import json
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from moka_peft.cli import call
from moka_peft.training import load_adapted, load_model, load_recipe
from moka_peft.training import run as training_run
from moka_peft.training.parts import find_parts

from .conftest import ALIGNED, ROOT
from .test_texts import BACKBONES, commands_of

pytestmark = pytest.mark.usefixtures("without_plots")

MEDIA = {  # what a scenario's made-up data holds, and the question's option of `moka generate`
    "avt": {"--video": "music_avqa*/video*/*.mp4", "--audio": "audiocaps*/**/*.wav"},
    "vt": {"--image": "a_okvqa*/**/*.jpg"},
    "st": {"--audio": "librispeech*/**/*.flac"},
}
PAIRS = {("avt", "llama2"), ("avt", "qwen2_5_vl"), ("vt", "llama3"), ("st", "qwen2")}
"""Every scenario and every backbone: the recipes of a stage differ in the backbone alone, as test_texts.py proves."""
PART = {"visual": "vision", "audio": "audio"}
LONGEST = "3"  # tokens of an answer


@pytest.fixture
def bases(monkeypatch) -> list[Any]:
    """The base models that runs open, in order, each with the weights that it had then."""
    opened: list[Any] = []

    def open_and_keep(**parts: Any) -> tuple[Any, Any]:
        base, processor = load_model(**parts)
        opened.append((base, {name: weight.clone() for name, weight in base.state_dict().items()}))
        return base, processor

    monkeypatch.setattr(training_run, "load_model", open_and_keep)
    return opened


def scenarios() -> Iterator[Any]:
    for task, key in product(MEDIA, BACKBONES):
        yield pytest.param(task, key, marks=[] if (task, key) in PAIRS else [pytest.mark.slow])


def weights_of(base: Any) -> dict[str, torch.Tensor]:
    """A model's own weights by their names before an adapter came onto it."""
    own = {name.replace(".base_layer.", "."): weight for name, weight in base.state_dict().items()}
    return {
        name: w for name, w in own.items() if not any(word in name for word in ("lora_", "moka_", "modules_to_save"))
    }


def trained_of(folder: Path) -> dict[str, torch.Tensor]:
    """The weights that a run saved, by their names in the base model."""
    weights = load_file(folder / "adapter_model.safetensors")
    return {name.removeprefix("base_model.model."): weight for name, weight in weights.items()}


def check_run(folder: Path, base: Any, opened: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Checks what a run left, and that of the base all but the projectors kept its bits; gives what was trained.

    opened: the base's weights as they were loaded.
    """
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["steps"] == 2
    projectors = tuple(find_parts(base)["projectors"])
    kept = {name: weight for name, weight in weights_of(base).items() if not name.startswith(projectors)}
    assert len(kept) > 50
    for name, weight in opened.items():
        assert name.startswith(projectors) or torch.equal(weight, kept[name]), name
    trained = trained_of(folder)
    parts = {name: weight for name, weight in trained.items() if name.startswith(projectors)}
    assert {name.split(".")[0] for name in parts} == set(projectors)
    before = {name.replace(".original_module", ""): weight for name, weight in weights_of(base).items()}
    for part in projectors:
        moved = [
            name
            for name, w in parts.items()
            if name.startswith(part) and not torch.equal(w.to(before[name]), before[name])
        ]
        assert moved, part
    return trained


@pytest.mark.parametrize(("task", "key"), list(scenarios()))
def test_both_stages_run(task: str, key: str, run_tiny, bases, place: Path, capsys):
    first = run_tiny(f"paper/{task}/stage1_{key}")
    aligned = check_run(first, *bases[0])
    assert not any("moka_" in name or "lora_" in name for name in aligned)

    second = run_tiny(f"paper/{task}/stage2_{key}", f"model.start_from=[{place}/paper_{task}_stage1_{key}]")
    trained = check_run(second, *bases[1])
    own = weights_of(bases[1][0])
    for name, weight in aligned.items():  # what stage 2 began with
        head, _, tail = name.partition("projector.")
        begun = own[f"{head}projector.original_module.{tail}"]
        assert torch.equal(begun, weight.to(begun.dtype)), name
    moka = {name: weight for name, weight in trained.items() if "moka_" in name}
    modalities = {"avt": 3, "vt": 2, "st": 2}[task]
    assert len(moka) == 2 * 7 * (modalities + 1)
    assert any(weight.any() for name, weight in moka.items() if ".moka_B" in name)

    words = ["generate", "--adapter", str(second), "--max-new-tokens", LONGEST, "What is it?"]
    for option, pattern in MEDIA[task].items():
        words += [option, str(sorted((place / "tiny" / "data").glob(pattern))[0])]
    capsys.readouterr()
    assert call(words) == 0


def test_projectors_that_were_aligned_one_after_the_other_meet_in_stage_2(run_tiny, place: Path):
    path = ROOT / "recipes" / "paper" / "avt" / "stage1_qwen2.yaml"
    runs = {}
    for modality, absent in (("visual", "model.audio=null"), ("audio", "model.vision=null")):
        command = next(command for command in commands_of(path) if absent in command)
        data = next(word for word in command if word.startswith("data.train="))
        runs[modality] = run_tiny("paper/avt/stage1_qwen2", absent, data, out=f"only_{modality}")
        assert {name.split("_projector.")[0] for name in trained_of(runs[modality])} == {PART[modality]}
    start = f"model.start_from=[{place}/only_visual, {place}/only_audio]"
    second = run_tiny("paper/avt/stage2_qwen2", start, out="after_both")
    assert load_recipe(second / "recipe.yaml").model.start_from == [str(folder) for folder in runs.values()]
    assert {name.split("_projector.")[0] for name in trained_of(second) if "_projector." in name} == set(PART.values())


def test_the_parts_are_the_same_at_every_start(run_tiny):
    model = load_recipe(run_tiny("paper/avt/stage1_llama3") / "recipe.yaml").model
    first, again = (load_model(**model.model_dump(exclude={"start_from"}))[0].state_dict() for _ in range(2))
    fixed = [name for name in first if "_projector." not in name]
    assert len(fixed) > 500 and all(torch.equal(first[name], again[name]) for name in fixed)


def test_what_was_aligned_opens_again(run_tiny):
    folder = run_tiny("paper/st/stage1_llama3")
    model, processor = load_adapted(folder)
    own = {name: weight for name, weight in model.get_base_model().state_dict().items() if "modules_to_save" in name}
    for name, weight in trained_of(folder).items():
        head, _, tail = name.partition("projector.")
        opened = own[f"{head}projector.modules_to_save.default.{tail}"]
        assert torch.equal(opened, weight.to(opened.dtype))
    assert processor.audio_token == "<audio>"


@pytest.mark.parametrize("name", ["llava_1_5", "qwen2_audio"])
@pytest.mark.parametrize("method", ["moka", "lora"])
def test_an_aligned_model_takes_both_methods(name: str, method: str, run_tiny):
    folder = run_tiny(f"aligned/{name}", f"adapter.method={method}")
    assert json.loads((folder / "metrics.json").read_text())["steps"] == 2
    assert all(f".{method}_" in weight for weight in trained_of(folder))


def test_the_aligned_recipes_are_all_tried():
    assert {path.stem for path in ALIGNED} == {"llava_1_5", "qwen2_audio", "qwen2_5_vl", "qwen2_5_omni"}


@pytest.mark.parametrize("name", ["qwen2_5_vl", "qwen2_5_omni"])
def test_an_aligned_model_that_needs_torchvision(name: str, run_tiny):
    pytest.importorskip("torchvision")
    run_tiny(f"aligned/{name}")


def test_a_broken_tiny_run_goes_on(run_tiny, monkeypatch):
    whole = trained_of(run_tiny("paper/vt/stage1_qwen2"))
    fit = training_run.build_trainer

    def build_breaking(*args: Any) -> Any:
        trainer = fit(*args)
        step = trainer.training_step

        def stop_in_step_2(*inputs: Any, **options: Any) -> Any:
            if trainer.state.global_step == 1:
                raise OSError("no space left")
            return step(*inputs, **options)

        monkeypatch.setattr(trainer, "training_step", stop_in_step_2)
        return trainer

    with monkeypatch.context() as patch:
        patch.setattr(training_run, "build_trainer", build_breaking)
        folder = run_tiny("paper/vt/stage1_qwen2", out="broken", code=1)
    assert not (folder / "metrics.json").exists()
    run_tiny("paper/vt/stage1_qwen2", "--resume", out="broken")
    resumed = trained_of(folder)
    assert resumed.keys() == whole.keys() and all(torch.equal(resumed[name], whole[name]) for name in whole)
