import json
import runpy
import signal
from pathlib import Path

import pytest

from moka_peft.training.folder import METRICS

SCRIPT = Path(__file__).with_name("killed_run.py")


@pytest.fixture
def run(processes, write_yaml, tmp_path: Path):
    """run(out, moment) trains into tmp_path/out until it is done or dies; gives exit code and output."""

    def start(out: str, moment: str | None = None, *overrides: str) -> tuple[int, str]:
        log = tmp_path / f"{out}.log"
        settings = [f"output_dir={tmp_path / out}", "resume=true", *overrides]
        values = {"recipe": str(write_yaml()), "overrides": settings, "log": str(log), "moment": moment}
        process = processes.Process(target=runpy.run_path, args=(str(SCRIPT), values, "__main__"))
        process.start()
        process.join()
        return process.exitcode, log.read_text()

    return start


def results(out: Path) -> tuple[bytes, list[float], tuple]:
    """The adapter's bytes, the losses of all steps, and what held-out questions scored."""
    last = max(out.glob("checkpoints/checkpoint-*"), key=lambda path: path.stat().st_mtime)
    history = json.loads((last / "trainer_state.json").read_text())["log_history"]
    metrics = json.loads((out / METRICS).read_text())
    losses = [entry["loss"] for entry in history if "loss" in entry]
    return (
        (out / "adapter_model.safetensors").read_bytes(),
        losses,
        (metrics["before"], metrics["after"], metrics["during"]),
    )


def test_killed_and_resumed_equals_uninterrupted(run, tmp_path: Path):
    assert run("whole")[0] == 0
    for moment in ("step", "checkpoint", "results"):
        code, _ = run("killed", moment)
        assert code == -signal.SIGKILL, moment
    code, log = run("killed")
    assert code == 0
    assert "not used: checkpoint-4 is torn (it was never finished)\ngoing on after step 2\n" in log
    assert "going on after step 6\n" in log
    expected, got = results(tmp_path / "whole"), results(tmp_path / "killed")
    assert len(got[1]) == 6
    assert got == expected


@pytest.mark.slow
@pytest.mark.parametrize("settings", [
    ["adapter.method=lora"],
    ["training.gradient_accumulation=2", "training.gradient_checkpointing=true"],
    ["training.num_workers=1"],
    ["evaluation.steps=1", "training.bf16=true"],
    ["evaluation.steps=1", "training.best=loss", "training.keep_checkpoints=1", "evaluation.metric=token_f1"],
    ["train={projectors: true, towers: true, embeddings: true}", "training.tower_learning_rate=1e-4"],
    ["training.optimizer=adamw_8bit"],
])  # fmt: skip
def test_every_way_to_train_resumes_exactly(run, tmp_path: Path, settings: list[str]):
    run("whole", None, *settings)
    for moment in ("first step", "step", "checkpoint", "results", None):
        run("killed", moment, *settings)
    assert results(tmp_path / "killed") == results(tmp_path / "whole")
