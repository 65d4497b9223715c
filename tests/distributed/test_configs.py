"""The accelerate configs in recipes/: accelerate reads them, and their commands, and what they say runs."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import prepare_deepspeed_cmd_env, prepare_multi_gpu_env

from .conftest import TRAJECTORY
from .launch import Launch, difference
from .test_equivalence import HALF, TOLERANCE, WHOLE

FOLDER = Path(__file__).parents[2] / "recipes" / "accelerate"
CONFIGS = sorted(FOLDER.glob("*.yaml"))
NODES = {"RANK": "3", "ADDRESS": "10.0.0.1"}


def commands(config: Path) -> list[list[str]]:
    """The commands in the comments that open a config, without `accelerate launch`."""
    text = config.read_text().replace("\\\n#", "")
    found = [shlex.split(line) for line in re.findall(r"^# +accelerate launch (.*)$", text, re.MULTILINE)]
    return [[NODES.get(word, word) for word in words] for words in found]


def environment(words: list[str], monkeypatch) -> dict[str, str]:
    """What `accelerate launch` would hand to every process."""
    monkeypatch.chdir(FOLDER.parents[1])
    args, config, _ = _validate_launch_command(launch_command_parser().parse_args(words))
    assert args.module and (args.training_script, args.training_script_args) == ("moka_peft.cli", ["train", "RECIPE"])
    if not args.use_deepspeed:
        return prepare_multi_gpu_env(args)
    args.deepspeed_fields_from_accelerate_config = ",".join(config.deepspeed_config)  # as launch_command does
    command, env = prepare_deepspeed_cmd_env(args)
    assert not command or command[0] != "deepspeed"  # which would need ssh
    return env


def test_there_are_four():
    assert [config.stem for config in CONFIGS] == ["ddp", "fsdp2", "zero2", "zero3"]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.stem)
def test_its_commands_are_accelerates(config, monkeypatch):
    one, several = (environment(words, monkeypatch) for words in commands(config))
    settings = {name: value for name, value in one.items() if name.startswith(("ACCELERATE_", "FSDP_"))}
    assert settings == {name: several[name] for name in settings}
    assert settings["ACCELERATE_MIXED_PRECISION"] == "no"
    expected = {
        "ddp": {},
        "fsdp2": {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"},
        "zero2": {"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_ZERO_STAGE": "2"},
        "zero3": {"ACCELERATE_USE_DEEPSPEED": "true", "ACCELERATE_DEEPSPEED_ZERO_STAGE": "3"},
    }[config.stem]
    assert settings | expected == settings


@pytest.mark.slow
def test_fsdp2_shards_as_it_says(processes, trained, tmp_path, monkeypatch):
    env = environment(commands(FOLDER / "fsdp2.yaml")[0], monkeypatch)
    chosen = {name: value for name, value in env.items() if name.startswith(("ACCELERATE_USE", "FSDP_"))}
    settings = {"out": str(tmp_path / "out"), "family": "qwen2_5_vl", "environment": chosen, **HALF}
    got = Launch(processes, tmp_path, TRAJECTORY, settings, 2).results()[0]
    expected = trained(1, family="qwen2_5_vl", **WHOLE)
    assert "base_model.model.model.language_model.layers.1" in got["units"]
    assert difference(got["losses"], expected["losses"]) < TOLERANCE


@pytest.mark.slow
def test_the_command_as_a_module():
    run = [sys.executable, "-W", "ignore", "-m", "moka_peft.cli"]
    told = subprocess.run([*run, "--help"], capture_output=True, text=True, check=True).stdout
    assert "train" in told
    assert subprocess.run([*run, "train", "absent.yaml"], capture_output=True).returncode == 2
