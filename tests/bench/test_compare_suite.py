"""The CPU suite's parts and figures, without its runs."""

import json
from pathlib import Path

import pytest

from moka_peft.analysis.compare.grid import Wanted, plan_grid
from moka_peft.cli import call
from moka_peft.training import load_recipe

ROOT = Path(__file__).parents[2]


def row(variant: str, value=None, mean: float = 0.5, difference: float | None = 0.02) -> dict:
    paired = {"mean": difference, "interval": [difference - 0.01, difference + 0.01]} if difference else None
    score = {"mean": mean, "sd": 0.01, "count": 5}
    names = {"variant": variant, "method": variant, "label": f"{variant} {value}", "parameters": 1000}
    return {**names, "value": value, "score": score, "difference": paired}


def part(*rows: dict) -> dict:
    return {"tables": [{"rows": rows}]}


@pytest.fixture
def parts() -> dict:
    return {
        "equal_rank": part(row("lora", difference=None), row("moka"), row("imod", difference=-0.02)),
        "equal_parameters": part(row("lora", difference=None), row("moka")),
        "rank": part(*(row(method, r) for method in ("lora", "moka") for r in (2, 8))),
        "cross_scale": part(row("lora"), row("moka", 0.0), row("moka", 1.0)),
        "visual": part(row("lora", difference=None), row("moka")),
    }


def test_every_part_is_a_comparison(load, monkeypatch):
    monkeypatch.chdir(ROOT)
    seen = []

    def stop(_, wanted):
        seen.append(wanted)
        raise InterruptedError

    monkeypatch.setattr("moka_peft.analysis.compare.grid.plan_grid", stop)
    parts = {name: words for name, words in load("compare_cpu").PARTS.items() if name != "speech"}  # needs models
    assert [call(["compare", *words, "--report-only"]) for words in parts.values()] == [1] * len(parts)
    rank, parameters = seen[:2]
    assert rank.seeds["lora"] == rank.seeds["moka"] == 10 and min(rank.seeds.values()) == 5
    assert parameters.budget_of == ("moka", 6) and parameters.equal == ("parameters",)
    assert len(seen) == len(parts)


def test_the_runs_of_the_first_part_are_shared(monkeypatch):
    monkeypatch.chdir(ROOT)
    recipe = load_recipe("recipes/compare/av_digits.yaml")
    methods = ("lora", "moka")
    seeds = dict.fromkeys(methods, 2)
    first = plan_grid(recipe, Wanted(methods, seeds, ("rank",)))
    second = plan_grid(recipe, Wanted(methods, seeds, (), vary={"adapter.r": [2, 4]}))
    assert {cell.identity for cell in first.cells} < {cell.identity for cell in second.cells}


def test_figures_show_what_was_run(load, parts, tmp_path):
    figures = load("compare_figures").draw_all(parts)
    assert set(figures) == {"comparison_methods", "comparison_axes", "comparison_modalities"}
    left, right = figures["comparison_methods"].axes
    assert [label.get_text() for label in left.get_yticklabels()] == ["imod None (1 k)", "moka None (1 k)"]
    assert [label.get_text() for label in right.get_yticklabels()] == ["moka None (1 k)"]
    ranks, scales = figures["comparison_axes"].axes
    assert len(ranks.containers) == 2 and len(scales.containers) == 1
    for name, figure in figures.items():
        figure.savefig(tmp_path / f"{name}.png")


def test_a_record_keeps_the_parts_that_are_not_run_again(load, tmp_path):
    suite = load("compare_cpu")
    for name in ("rank", "visual"):
        folder = tmp_path / "reports" / name
        folder.mkdir(parents=True)
        (folder / "comparison.json").write_text(json.dumps({"tables": ["new"]}))
    earlier = {"parts": {name: {"tables": ["old"]} for name in ("audio", "rank", "visual")}}
    record = suite.record(earlier, ["rank", "speech"], tmp_path, "python bench/compare_cpu.py")
    assert {name: part["tables"] for name, part in record["parts"].items()} == {
        "rank": ["new"], "visual": ["old"], "audio": ["old"],
    }  # fmt: skip
    assert record["parts"]["rank"]["command"] == "python bench/compare_cpu.py"
    assert record["parts"]["rank"]["environment"]["torch"]
