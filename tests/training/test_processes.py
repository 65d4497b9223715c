"""A run in two processes: one folder, one voice, all questions answered, and no process that waits for ever."""

import io
import json
import os
import re
import runpy
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from moka_peft.composite import tiny_avt_processor
from moka_peft.training import load_recipe, train
from moka_peft.training.metrics import value_of
from moka_peft.training.processes import gather, is_sharded, merge_shares, on_first, own_share
from moka_peft.training.reading import training_collator
from moka_peft.training.recipe_conflicts import missing_here
from moka_peft.training.sharded import trained_weights

SCRIPT = Path(__file__).with_name("one_of_two.py")
SETTINGS = [
    "adapter.lora_dropout=0.0", "training.steps=4", "data.eval.size=7", "evaluation.steps=2", "evaluation.batch_size=3",
]  # fmt: skip


@pytest.fixture
def run_two(processes, write_yaml, tmp_path: Path):
    """run_two("out", *settings, fail_at={1: 2}) -> [(exit code, output), ...] of both processes."""

    def start(
        out: str, *settings: str, fail_at: dict[int, int] | None = None, shard: bool = False
    ) -> list[tuple[int, str]]:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        shared = {"recipe": str(write_yaml()), "overrides": [f"output_dir={tmp_path / out}", *settings], "port": port}
        logs = [tmp_path / f"{out}-{rank}.log" for rank in range(2)]
        workers = []
        for rank, log in enumerate(logs):
            values = {**shared, "rank": rank, "log": str(log), "fail_at": (fail_at or {}).get(rank), "shard": shard}
            workers.append(processes.Process(target=runpy.run_path, args=(str(SCRIPT), values, "__main__")))
            workers[-1].start()
        for worker in workers:
            worker.join(60)
            if worker.is_alive():
                worker.kill()
                worker.join()
        return [(worker.exitcode, log.read_text()) for worker, log in zip(workers, logs, strict=True)]

    return start


def test_two_processes_do_what_one_does(run_two, write_yaml, tmp_path: Path):
    [(code, shown), (other_code, other_shown)] = run_two("two", *SETTINGS, "training.batch_size=2")
    assert (code, other_code) == (0, 0), shown + other_shown
    assert other_shown == ""
    assert shown.count("accuracy") == 3
    one = train(load_recipe(write_yaml(), [*SETTINGS, f"output_dir={tmp_path / 'one'}"]), Console(file=io.StringIO()))
    two = json.loads((tmp_path / "two/metrics.json").read_text())
    assert two["processes"] == 2
    for when in ("before", "after"):
        assert {group: value_of(score) for group, score in two[when].items()} == {
            group: value_of(score) for group, score in one[when].items()
        }
        assert two["held_out_loss"][when] == pytest.approx(one["held_out_loss"][when], rel=1e-4)
    assert two["after"]["all"]["total"] == 7
    losses = [
        [entry["loss"] for entry in json.loads(path.read_text())["log_history"] if "loss" in entry]
        for path in (tmp_path / name / "checkpoints/checkpoint-4/trainer_state.json" for name in ("one", "two"))
    ]
    assert len(losses[0]) == 4 and losses[0] == pytest.approx(losses[1], rel=1e-4)
    [rate] = re.findall(r"([\d.]+) samples/s", shown)
    assert float(rate) > 0


def test_what_process_0_refuses_ends_both(run_two, tmp_path: Path):
    (tmp_path / "two").mkdir()
    (tmp_path / "two/thesis.tex").touch()
    [(code, shown), (other_code, other_shown)] = run_two("two")
    assert (code, other_code) == (3, 3)
    assert shown.startswith("ValueError: `output_dir` holds files of something else")
    assert other_shown.startswith("OtherProcessError: process 0 ended with ValueError: `output_dir` holds")


@pytest.mark.parametrize("failing", [1, pytest.param(0, marks=pytest.mark.slow)])
def test_a_process_that_fails_leaves_none_waiting(run_two, failing: int):
    ended = run_two("two", "data.eval=null", fail_at={failing: 2})
    assert ended[failing] == (3, ended[failing][1]) and "RuntimeError: a process failed" in ended[failing][1]
    assert ended[1 - failing][0] == 3 and "a process failed" not in ended[1 - failing][1]


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["torch.distributed.run", "accelerate.commands.launch"])
def test_under_the_launchers(launcher: str, write_yaml, tmp_path: Path):
    is_accelerate = "accelerate" in launcher
    processes = ["--multi_gpu", "--num_processes=2", "--num_machines=1"] if is_accelerate else ["--nproc-per-node=2"]
    command = [sys.executable, "-m", launcher, *processes, "-m", "moka_peft.cli", "train", str(write_yaml())]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=200, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("adapter, metrics and plots are in") == 1
    assert json.loads((tmp_path / "out/metrics.json").read_text())["processes"] == 2
    again = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert again.returncode != 0
    assert again.stderr.count("moka: `output_dir` holds a finished run") == 1


@pytest.mark.parametrize("count", [0, 1, 4, 5, 6])
def test_shares_come_back_in_order(count: int, monkeypatch):
    monkeypatch.setattr("moka_peft.training.processes.is_connected", lambda: True)
    monkeypatch.setenv("WORLD_SIZE", "3")
    shares = []
    for rank in range(3):
        monkeypatch.setenv("RANK", str(rank))
        shares.append(list(own_share(count)))
    assert merge_shares(shares) == list(range(count))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_alone_nothing_is_sent():
    assert gather(3) == [3]
    assert list(own_share(3)) == [0, 1, 2]
    assert on_first(lambda: 5) == 5


@pytest.mark.slow
def test_a_sharded_run_answers_and_saves_as_one_process_does(run_two, write_yaml, tmp_path: Path):
    """FSDP2; 7 questions in batches of 3 are two batches for process 0 and one for process 1."""
    [(code, shown), (other_code, other_shown)] = run_two("two", *SETTINGS, "training.batch_size=2", shard=True)
    assert (code, other_code) == (0, 0), shown + other_shown
    one = train(load_recipe(write_yaml(), [*SETTINGS, f"output_dir={tmp_path / 'one'}"]), Console(file=io.StringIO()))
    two = json.loads((tmp_path / "two/metrics.json").read_text())
    assert two["held_out_loss"] == pytest.approx(one["held_out_loss"], rel=1e-4)
    assert [entry["held_out_loss"] for entry in two["during"]] == pytest.approx(
        [entry["held_out_loss"] for entry in one["during"]], rel=1e-4
    )
    assert two["after"]["all"]["right"] == one["after"]["all"]["right"]
    ours, theirs = (load_file(tmp_path / name / "adapter_model.safetensors") for name in ("one", "two"))
    assert ours.keys() == theirs.keys()
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-3, atol=1e-3)


@pytest.mark.slow
def test_a_sharded_run_that_died_at_its_end_is_finished(run_two, tmp_path: Path, monkeypatch):
    """Its checkpoint is in parts, as recipes/accelerate/fsdp2.yaml has it."""
    monkeypatch.setenv("FSDP_STATE_DICT_TYPE", "SHARDED_STATE_DICT")
    settings = [*SETTINGS, "data.eval=null", "evaluation.steps=null", "training.batch_size=2"]
    ended = run_two("two", *settings, shard=True)
    assert [code for code, _ in ended] == [0, 0], ended
    adapter = tmp_path / "two/adapter_model.safetensors"
    expected = load_file(adapter)
    for path in (adapter, tmp_path / "two/metrics.json"):
        path.unlink()
    ended = run_two("two", *settings, "resume=true", shard=True)
    assert [code for code, _ in ended] == [0, 0], ended
    got = load_file(adapter)
    assert got.keys() == expected.keys() and all(torch.equal(got[name], expected[name]) for name in got)


@pytest.mark.parametrize(
    ("settings", "kinds"),
    [
        ([], ()),
        (["train.projectors=true"], ("image", "audio")),
        (["adapter.modules_to_save=[vision_projector]"], ("image", "audio")),
        (["adapter.target_modules=all-linear"], ("image", "audio")),
    ],
    ids=["decoder", "part", "named", "targets"],
)
def test_what_trains_outside_the_decoder_runs_in_every_process(
    write_yaml, monkeypatch, tmp_path: Path, settings, kinds
):
    monkeypatch.setattr("moka_peft.training.reading.world_size", lambda: 2)
    recipe = load_recipe(write_yaml("train_projectors: true\n"), settings)
    collator = training_collator(recipe, tiny_avt_processor(), None, tmp_path)
    assert collator.kinds == kinds


@pytest.mark.parametrize(("stage", "sharded"), [("2", False), ("3", True)])
def test_zero_3_shards_the_model(monkeypatch, stage: str, sharded: bool):
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    monkeypatch.setenv("ACCELERATE_DEEPSPEED_ZERO_STAGE", stage)
    assert is_sharded() is sharded
    assert [key for key, _ in missing_here({"training": {"best": "loss"}})] == [("training", "best")] * sharded


def test_a_run_that_had_ended_has_no_engine_to_ask():
    trainer: Any = SimpleNamespace(
        is_fsdp_enabled=False, is_deepspeed_enabled=True, model_wrapped=torch.nn.Linear(1, 1)
    )
    assert trained_weights(trainer) is None
