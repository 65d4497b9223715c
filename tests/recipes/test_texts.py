"""What the recipes say: they load, their commands are right, every value has its source, and they do not drift."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from moka_peft.training import load_recipe

from .conftest import ALIGNED, PAPER, ROOT

TASKS, STAGES, BACKBONES = ("avt", "vt", "st"), ("stage1", "stage2"), ("llama2", "llama3", "qwen2", "qwen2_5_vl")
SOURCES = ("paper", "script", "code", "ours")
OWN = {"model.text", "model.start_from", "output_dir"}
"""What is each backbone's own; all else is equal in the four recipes of a stage."""
FREE = ("model.start_from", "model.audio.segment_seconds")
"""What may differ in the models of two stages: it has no weights."""


def flat(values: Any, prefix: str = "") -> dict[str, Any]:
    """Nested values as `section.key` -> value."""
    if not isinstance(values, dict):
        return {prefix: values}
    inner = (flat(value, f"{prefix}.{key}".lstrip(".")) for key, value in values.items())
    return {key: value for part in inner for key, value in part.items()}


def settings_of(path: Path) -> dict[str, Any]:
    return flat(load_recipe(path, without_files=True).model_dump())


def commands_of(path: Path) -> list[list[str]]:
    """The commands in a recipe's head, as a shell would split them."""
    head = path.read_text().split("\n\n", 1)[0].replace("\\\n#", "")
    lines = [line.removeprefix("#").strip() for line in head.splitlines() if re.match(r"#   \S", line)]
    return [shlex.split(line, comments=True) for line in lines if line.startswith(("moka", "accelerate"))]


def test_every_scenario_stage_and_backbone_has_a_recipe():
    expected = {f"{task}/{stage}_{key}.yaml" for task in TASKS for stage in STAGES for key in BACKBONES}
    assert {str(path.relative_to(ROOT / "recipes" / "paper")) for path in PAPER} == expected


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("stage", STAGES)
def test_the_backbones_of_a_stage_differ_in_nothing_else(task: str, stage: str):
    recipes = [settings_of(ROOT / "recipes" / "paper" / task / f"{stage}_{key}.yaml") for key in BACKBONES]
    shared = [{key: value for key, value in recipe.items() if key not in OWN} for recipe in recipes]
    assert all(other == shared[0] for other in shared[1:])
    assert len({recipe["model.text"] for recipe in recipes}) == len({recipe["output_dir"] for recipe in recipes}) == 4


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("key", BACKBONES)
def test_stage_2_has_the_same_weights_and_begins_with_stage_1(task: str, key: str):
    first, second = (settings_of(ROOT / "recipes" / "paper" / task / f"{stage}_{key}.yaml") for stage in STAGES)
    assert second.pop("model.start_from") == [first["output_dir"]]
    models = [{name: v for name, v in recipe.items() if name.startswith("model.")} for recipe in (first, second)]
    assert models[0] | dict.fromkeys(FREE) == models[1] | dict.fromkeys(FREE)
    if task == "avt":  # as the authors cut AudioCaps and MUSIC-AVQA
        assert [model["model.audio.segment_seconds"] for model in models] == [1.0, 2.0]


@pytest.mark.parametrize("stage", STAGES)
def test_both_scenarios_with_images_see_alike(stage: str):
    recipes = [settings_of(ROOT / "recipes" / "paper" / task / f"{stage}_llama2.yaml") for task in ("avt", "vt")]
    seen = [{name: v for name, v in recipe.items() if name.startswith("model.vision.")} for recipe in recipes]
    assert seen[0] == seen[1] and len(seen[0]) > 5


@pytest.mark.parametrize("path", [*PAPER, *ALIGNED], ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_the_commands_in_the_head_are_about_this_recipe(path: Path):
    own, commands = str(path.relative_to(ROOT)), commands_of(path)
    verbs = {command[1] for command in commands if command[0] == "moka"}
    assert {"plan", "validate", "train"} <= verbs and sum(command[0] == "accelerate" for command in commands) == 1
    assert any(command[-1] == "--tiny" for command in commands)
    for command in commands:
        assert own in command, command
        settings = [word for word in command[command.index(own) + 1 :] if "=" in word]
        load_recipe(path, settings, without_files=True)


@pytest.mark.parametrize("path", [*PAPER, *ALIGNED], ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_one_gpu_and_eight_take_steps_of_the_same_size(path: Path):
    sizes = []
    for command, processes in ((commands_of(path)[-1], 8), *((c, 1) for c in commands_of(path))):
        settings = [word for word in command if word.startswith("training.gradient_accumulation=")]
        if settings or processes == 8:
            training = load_recipe(path, settings, without_files=True).training
            sizes.append(training.batch_size * training.gradient_accumulation * processes)
    assert len(sizes) == 2 and sizes[0] == sizes[1] and sizes[0] == (64 if "stage1" in path.stem else 32)


@pytest.mark.parametrize("path", PAPER, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_every_value_has_its_source(path: Path):
    lines = path.read_text().split("\n\n", 1)[1].splitlines()
    values = [line for line in lines if re.match(r"\s*(- |\w+: )\S", line) and not line.startswith("output_dir")]
    assert len(values) > 20
    for line in values:
        assert re.search(rf"  # ({'|'.join(SOURCES)})\b", line), line


@pytest.mark.parametrize("path", ALIGNED, ids=lambda path: path.stem)
def test_both_methods_train_alike(path: Path):
    moka = settings_of(path)
    command = next(command for command in commands_of(path) if "adapter.method=lora" in command)
    lora = flat(load_recipe(path, command[3:], without_files=True).model_dump())
    assert {key for key in moka if moka[key] != lora[key]} == {"adapter.method", "output_dir"}
