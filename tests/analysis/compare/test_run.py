"""The runs of a comparison: none is lost, none is done twice, and none stops the others."""

import errno
import json
import os
import runpy
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

import moka_peft.analysis.compare.cell as cell_module
import moka_peft.training.run as run_module
from moka_peft.analysis.compare.cell import COSTS
from moka_peft.analysis.compare.grid import Wanted, plan_grid
from moka_peft.analysis.compare.results import RESULT, Result, read_result
from moka_peft.analysis.compare.run import CELLS, FAILURES, LOCK, cell_folders, read_tables, run_grid
from moka_peft.analysis.compare.workers import Failure
from moka_peft.training.folder import ANSWERS, CHECKPOINTS, METRICS

SCRIPT = Path(__file__).with_name("killed_grid.py")
QUIET = Console(quiet=True)
MEASURED = {"seconds", "machine", "folder"}  # differ between equal runs


@pytest.fixture(scope="module")
def start(processes, recipe_file):
    """start(out, dies_in) compares LoRA with two seeds and MokA with one in a process of its own, and gives it."""

    def run(out: Path, dies_in: int = 0, count: int = 1):
        values = {"recipe": str(recipe_file), "out": str(out), "log": str(out / "log")}
        values |= {"dies_in": dies_in, "processes": count}
        process = processes.Process(target=runpy.run_path, args=(str(SCRIPT), values, "__main__"))
        process.start()
        return process

    return run


@pytest.fixture(scope="module")
def whole(start: Callable, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a comparison that ran through."""
    out = tmp_path_factory.mktemp("whole")
    process = start(out)
    process.join()
    assert process.exitcode == 0
    return out


@pytest.fixture
def grid(recipe):
    """That comparison."""
    return plan_grid(recipe, Wanted(("lora", "moka"), {"lora": 2, "moka": 1}, ("rank",)))


def results(out: Path) -> dict[str, dict]:
    """What the runs of a folder came to, without what differs between equal runs, and their answers."""
    found = {}
    for folder in sorted((out / CELLS).iterdir()):
        result = read_result(folder)
        assert isinstance(result, Result)
        own = {key: value for key, value in vars(result).items() if key not in MEASURED}
        found[folder.name] = own | {"answers": (folder / ANSWERS).read_text(), "points": result.points}
    return found


def test_each_run_has_its_result(whole, grid):
    found = results(whole)
    assert found.keys() == {cell.name for cell in grid.cells}
    for cell in grid.cells:
        own, metrics = found[cell.name], json.loads((whole / CELLS / cell.name / METRICS).read_text())
        assert (own["cell"], own["variant"], own["seed"], own["settings"]) == (
            cell.name, cell.variant, cell.seed, cell.settings,
        )  # fmt: skip
        assert own["score"] == metrics["after"]["all"]["accuracy"] == sum(p for p, _ in own["points"].values()) / 6
        assert own["groups"].keys() == metrics["after"].keys() - {"all"} and own["questions"] == 6
        assert own["trained_parameters"] == metrics["trained_parameters"] > own["adapter_parameters"] > 0
        assert own["steps"] == 3 and own["metric"] == "exact_match" and own["loss"] > 0 < own["peak_bytes"]
        assert metrics["before"] == {} and not (whole / CELLS / cell.name / CHECKPOINTS).exists()


def test_seeds_and_methods_lead_to_other_runs(whole):
    assert len({own["loss"] for own in results(whole).values()}) == 3


def test_a_finished_comparison_does_nothing_again(whole, grid, monkeypatch):
    monkeypatch.setattr(cell_module, "train", None)
    assert run_grid(grid, whole, console=QUIET) == []


def test_killed_and_restarted_loses_no_run_and_repeats_none(start, whole, tmp_path):
    shutil.copytree(whole / COSTS, tmp_path / COSTS)
    killed = start(tmp_path, dies_in=2)
    killed.join()
    assert killed.exitcode == -signal.SIGKILL
    early = {path: path.read_bytes() for path in tmp_path.glob(f"{CELLS}/*/{RESULT}")}
    [interrupted] = [path for path in (tmp_path / CELLS).iterdir() if not (path / METRICS).exists()]
    assert len(early) == 1 and interrupted.name.startswith("moka")
    assert (interrupted / CHECKPOINTS / "checkpoint-1").is_dir()

    last = start(tmp_path)
    last.join()
    assert last.exitcode == 0
    assert {path: path.read_bytes() for path in early} == early
    started = (tmp_path / "log").read_text().split()
    assert [started.count(path.name) for path in (tmp_path / CELLS).iterdir() if path != interrupted] == [1, 1]
    assert started.count(interrupted.name) == 2
    steps = [line.split() for line in (tmp_path / "log.steps").read_text().splitlines()]
    assert [step for name, step in steps if name == interrupted.name] == ["0", "1", "1", "2"]
    assert results(tmp_path) == results(whole)  # dropout, order and optimizer go on where they were


def test_a_run_killed_before_its_result_is_not_trained_again(whole, plan, tmp_path, monkeypatch):
    """All is there but result.json, written just after metrics.json; keys without effect have changed since."""
    shutil.copytree(whole, out := tmp_path / "out")
    for path in out.glob(f"{CELLS}/*-seed0-*/{RESULT}"):
        path.unlink()
    monkeypatch.setattr(run_module, "_run", None)
    assert run_grid(plan("training.save_steps=2", "training.num_workers=1"), out, console=QUIET) == []
    assert results(out) == results(whole)


def test_after_its_minutes_no_run_begins(plan, tmp_path, monkeypatch):
    monkeypatch.setattr(cell_module, "train", None)
    grid = plan()
    assert run_grid(grid, tmp_path, minutes=0, console=QUIET) == []
    assert read_tables(grid, tmp_path, "lora")[1] == 2 and not list((tmp_path / CELLS).iterdir())


def test_a_run_that_fails_is_told_and_stops_none(plan, tmp_path, monkeypatch, made_up_training):
    train, fails = cell_module.train, [True]

    def failing(recipe, console):
        if recipe.adapter.method == "lora" and fails:
            raise RuntimeError("no luck\nat all")
        return train(recipe, console)

    monkeypatch.setattr(cell_module, "train", failing)
    grid = plan()
    [failure] = run_grid(grid, tmp_path, console=QUIET)
    trace = tmp_path / FAILURES / f"{grid.cells[0].name}.txt"
    assert failure.cell == grid.cells[0] and failure.error == f"RuntimeError: no luck at all ({trace})"
    assert "in failing" in trace.read_text()
    [table], missing = read_tables(grid, tmp_path, "lora")
    assert [row.variant for row in table.rows] == ["moka"] and missing == 1

    fails.clear()
    assert run_grid(grid, tmp_path, console=QUIET) == [] and not trace.exists()
    [table], missing = read_tables(grid, tmp_path, "lora")
    assert [(row.label, row.variant, row.value) for row in table.rows] == [
        ("LoRA", "lora", None),
        ("MokA", "moka", None),
    ]
    assert missing == 0 and list(table.rows[1].results) == [0] and table.rows[1].results[0].variant == "moka"


def test_a_traceback_that_cannot_be_written_stops_none(plan, tmp_path, monkeypatch):
    """As on a full disk."""

    def fail(recipe, console):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(cell_module, "train", fail)
    (tmp_path / FAILURES).touch()
    failures = run_grid(plan(), tmp_path, console=QUIET)
    assert [os.strerror(errno.ENOSPC) in failure.error for failure in failures] == [True, True]


def test_another_folder_that_is_not_this_run_is_refused(plan, whole, tmp_path):
    cell = plan(methods=("lora",)).cells[0]
    there = whole / CELLS / cell.name
    (tmp_path / CELLS / cell.name).mkdir(parents=True)
    (tmp_path / CELLS / cell.name / "recipe.yaml").write_text(
        (there / "recipe.yaml").read_text().replace("steps: 3", "steps: 4")
    )
    [failure] = run_grid(plan(methods=("lora",)), tmp_path, console=QUIET)
    assert "its recipe is not this run's" in failure.error


def test_runs_are_found_under_the_name_another_comparison_gave_them(plan, tmp_path):
    cell = plan(methods=("lora",)).cells[0]
    there = tmp_path / CELLS / f"other-{cell.identity}"
    there.mkdir(parents=True)
    assert cell_folders([cell, replace(cell, identity="x")], tmp_path) == {
        cell.identity: there, "x": tmp_path / CELLS / cell.name,
    }  # fmt: skip


def test_settings_are_told_against_this_comparisons_recipe(plan, tmp_path, make_runs):
    """Another one, whose own recipe had this rank, made the run."""
    grid = plan(methods=("moka",), equal=(), baseline="moka", vary={"adapter.r": [2]})
    [made] = make_runs("other", scores=[0.5]).values()
    folder = tmp_path / CELLS / f"other-{grid.cells[0].identity}"
    folder.mkdir(parents=True)
    (folder / RESULT).write_text(json.dumps(made.as_json()))
    [table], missing = read_tables(grid, tmp_path, "moka")
    found = table.rows[0].results[0]
    assert (missing, found.variant, found.settings) == (0, "moka", {"adapter.lora_alpha": 4.0, "adapter.r": 2})
    assert (found.score, found.folder) == (0.5, folder)


def test_a_second_comparison_in_the_same_folder_is_refused(processes, plan, tmp_path):
    (tmp_path / LOCK).touch()
    ready, done = processes.Event(), processes.Event()
    holder = processes.Process(target=hold, args=(str(tmp_path / LOCK), ready, done))
    holder.start()
    ready.wait(60)
    try:
        with pytest.raises(OSError, match="`out` is in use: the comparison of process 77 runs in"):
            run_grid(plan(), tmp_path, console=QUIET)
    finally:
        done.set()
        holder.join()
    assert not list((tmp_path / CELLS).iterdir())


@pytest.mark.parametrize("gpus, processes, expected", [(2, 1, [(1, None)]), (1, 1, []), (1, 2, [(2, 4)])])
def test_one_run_takes_one_gpu(plan, tmp_path, monkeypatch, gpus, processes, expected):
    """A process of its own keeps to one; in this one the Trainer would spread a run over all of them."""
    started = []

    def run(jobs, count, threads, logs, until):
        started.append((count, threads))
        return []

    monkeypatch.setattr("moka_peft.analysis.compare.run.run_in_processes", run)
    monkeypatch.setattr("moka_peft.analysis.compare.run.attempt", lambda job: Failure(job.cell, "not run"))
    monkeypatch.setattr("torch.cuda.device_count", lambda: gpus)
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    settings = "training.num_threads=null"
    run_grid(plan(settings), tmp_path, processes=processes, console=QUIET)
    assert started == expected


def test_a_folder_that_cannot_be_locked_is_not_called_in_use(plan, tmp_path, monkeypatch):
    def refuse(file, kind):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.lockf", refuse)
    with pytest.raises(OSError, match=os.strerror(errno.ENOLCK)):
        run_grid(plan(), tmp_path, console=QUIET)


def hold(lock: str, ready, done) -> None:
    import fcntl

    with open(lock, "w") as file:
        fcntl.lockf(file, fcntl.LOCK_EX)
        file.write("77")
        file.flush()
        ready.set()
        done.wait(60)
