"""Interleaved rounds: who is timed when, and when a run does not count."""

import gc
import time

import pytest
import torch

from moka_peft.analysis.speed import machine_load, rounds
from moka_peft.analysis.speed.rounds import Run, measure, time_rounds, why_void
from moka_peft.training.determinism import fixed_threads

QUIET = {"other_cores": 0.0}


def test_every_provider_runs_once_a_round_in_changing_order():
    calls: list[str] = []
    providers = {name: lambda name=name: calls.append(name) for name in ("base", "base again", "lora", "moka")}
    seconds = time_rounds(providers, rounds=20, seed=0)
    by_round = [tuple(calls[i : i + 4]) for i in range(0, 80, 4)]
    assert all(sorted(names) == sorted(providers) for names in by_round)
    assert len(set(by_round)) > 5
    assert {name: len(values) for name, values in seconds.items()} == dict.fromkeys(providers, 20)
    calls.clear()
    time_rounds(providers, rounds=20, seed=0)
    assert [tuple(calls[i : i + 4]) for i in range(0, 80, 4)] == by_round


def test_seconds_are_those_of_the_work():
    seconds = time_rounds({"long": lambda: time.sleep(0.02), "short": lambda: None}, rounds=2, seed=0)
    assert min(seconds["long"]) >= 0.02 > max(seconds["short"])


def test_no_garbage_is_collected_meanwhile_and_again_afterwards():
    was_on: list[bool] = []
    time_rounds({"work": lambda: was_on.append(gc.isenabled())}, rounds=2, seed=0)
    assert was_on == [False, False] and gc.isenabled()


@pytest.mark.parametrize(
    ("again", "load", "reasons"),
    [
        ([1.0, 1.0, 1.0], QUIET, []),
        ([1.029, 9.0, 0.5], QUIET, []),  # medians: one slow round is no reason
        ([1.04, 1.04, 1.04], QUIET, ["'base' took 0.962 of 'base again': expected 1 within 3%"]),
        ([0.96, 0.96, 0.96], QUIET, ["'base' took 1.042 of 'base again': expected 1 within 3%"]),
        ([1.0, 1.0, 1.0], {"other_cores": 0.5}, ["other processes used 0.50 cores: expected at most 0.15"]),
        ([1.0, 1.0, 1.0], {"other_cores": None}, []),
    ],
)
def test_a_run_is_void_where_the_base_does_not_repeat_or_others_ran(again, load, reasons):
    assert why_void({"base": [1.0, 1.0, 1.0], "base again": again, "moka": [2.0] * 3}, load) == reasons


def test_every_base_is_checked_against_its_own_repetition():
    seconds = {"base 1": [1.0], "base 1 again": [1.0], "base 2": [2.0], "base 2 again": [2.5]}
    assert why_void(seconds, QUIET) == ["'base 2' took 0.800 of 'base 2 again': expected 1 within 3%"]


@pytest.mark.parametrize(("void_runs", "attempts", "void"), [(0, 1, False), (2, 3, False), (5, 5, True)])
def test_a_void_run_is_repeated(monkeypatch, void_runs, attempts, void):
    verdicts = iter([["loud"]] * void_runs + [[]])
    monkeypatch.setattr(rounds, "why_void", lambda seconds, load: next(verdicts))
    said: list[str] = []
    run = measure({"base": lambda: None}, rounds=2, warmup=1, attempts=max(attempts, 1), say=said.append)
    assert (run.attempts, bool(run.void)) == (attempts, void)
    assert said.count("void: loud") == void_runs and "1 providers, 2 rounds" in said[0]
    assert run.facts()["void"] == (["loud"] if void else [])


def test_a_repetition_of_nothing_is_refused():
    with pytest.raises(ValueError, match="'base again' repeats a provider that is not among"):
        measure({"base again": lambda: None})


def test_facts_of_a_run():
    run = Run({"base": [1.0, 3.0], "base again": [2.0, 2.0]}, order_seed=7, load=QUIET)
    assert run.median("base") == 2.0
    assert run.facts() == {
        "rounds": 2,
        "order_seed": 7,
        "attempts": 1,
        "void": [],
        "base_over_base": {"base": 1.0},
        "other_cores": 0.0,
    }


def test_load_of_others_is_what_all_used_less_our_own(monkeypatch, tmp_path):
    """Ten cores' ticks over a second in which this process used almost nothing; idle and iowait do not count."""
    stat = tmp_path / "stat"
    monkeypatch.setattr(machine_load, "STAT", stat)
    stat.write_text("cpu 100 10 20 5000 70 1 2 3 40 50\ncpu0 0\n")
    load = machine_load.MachineLoad()
    ticks = machine_load.os.sysconf("SC_CLK_TCK")
    stat.write_text(f"cpu {100 + 10 * ticks} 10 20 9000 90 1 2 3 40 50\ncpu0 0\n")
    load.start["clock"] -= 1.0
    assert load.facts()["other_cores"] == pytest.approx(10, abs=0.2)


def test_load_is_unknown_without_proc(monkeypatch, tmp_path):
    monkeypatch.setattr(machine_load, "STAT", tmp_path / "none")
    assert machine_load.MachineLoad().facts()["other_cores"] is None


def test_threads_are_fixed_inside_alone():
    before = torch.get_num_threads()
    with fixed_threads(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before
