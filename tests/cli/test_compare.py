import json

import pytest

from moka_peft.cli import call
from moka_peft.training import load_recipe

TINY = ["training.steps=1", "evaluation.max_new_tokens=1"]


@pytest.fixture
def reports(monkeypatch):
    """What would be shown and written: (tables, folder, words)."""
    found = []
    monkeypatch.setattr(
        "moka_peft.cli.compare._report", lambda tables, folder, console, **words: found.append((tables, folder, words))
    )
    return found


@pytest.mark.parametrize("options, message", [
    (["--methods", "lora,mokka"], "--methods: knows no 'mokka': expected some of lora, dora,"),
    (["--methods", "moka"], "--baseline: is not compared: expected one of moka, got lora."),
    (["--seeds", "0"], "--seeds: expected a number > 0, or METHOD=number"),
    (["--seeds", "dora=2", "--methods", "lora,moka"], "of a method that is compared, got 'dora=2'."),
    (["--seeds", "5,3"], "--seeds: is given twice for all. Keep one of them."),
    (["--seeds", "lora=10", "--seeds", "lora=5"], "--seeds: is given twice for lora."),
    (["--vary", "adapter.r=2", "--vary", "adapter.r=4"], "--vary: is given twice for adapter.r. Put all values"),
    (["--equal", "size"], "'size'"),
    (["--parameters-of", "moka:x"], "--parameters-of: expected METHOD or METHOD:RANK"),
    (["--parameters-of", "it"], "--parameters-of: knows no 'it'"),
    (["--vary", "adapter.r"], "--vary: expected KEY=VALUE,VALUE, got 'adapter.r'."),
    (["--vary", "adapter.r="], "--vary: expected KEY=VALUE,VALUE"),
    (["--vary", "adapter.r=[2"], "--vary: expected KEY=VALUE,VALUE"),
    (["--vary", "seed=1,2"], "moka: `--vary seed` is no axis. Use `--seeds`."),
    (["--vary", "training.steps=x", "--methods", "lora"], "moka: `--vary training.steps=x`: `training.steps` is wrong"),
    (["data.eval=null", "--methods", "lora"], "moka: `data.eval` is missing"),
    (["--processes", "0"], "'--processes'"),
])  # fmt: skip
def test_wrong_options_are_wrong_usage(recipe, tmp_path, capsys, options, message):
    assert call(["compare", str(recipe), *options, "--out", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err.replace("Invalid value for ", "")
    assert not (tmp_path / "out").exists()


def test_runs_become_tables(recipe, tmp_path, capsys, reports):
    words = ["compare", str(recipe), *TINY, "--methods", "lora,moka", "--equal", "rank", "--out", str(tmp_path)]
    assert call([*words, "--seeds", "1", "--name", "first"]) == 0
    assert "2 runs, 0 of them finished earlier" in capsys.readouterr().out
    [([table], folder, told)] = reports
    assert [(row.label, list(row.results)) for row in table.rows] == [("LoRA", [0]), ("MokA", [0])]
    assert folder == tmp_path / "reports" / "first" and told["title"] == "first" and told["notes"] == []
    assert told["settings"]["command"] == " ".join(["moka", *words, "--seeds", "1", "--name", "first"])
    assert told["settings"]["recipe"] == str(recipe) and told["settings"]["training"]["steps"] == 1
    json.dumps(told["settings"])

    assert call([*words, "--seeds", "lora=2", "--seeds", "1", "--report-only"]) == 0
    [_, ([table], folder, told)] = reports
    assert [list(row.results) for row in table.rows] == [[0], [0]] and folder.name == "recipe"
    assert told["notes"] == ["1 of 3 runs are not finished; the tables hold the others."]
    assert told["notes"][0] in capsys.readouterr().out


def test_failures_are_lines_and_the_others_are_reported(recipe, tmp_path, capsys, reports, monkeypatch):
    from moka_peft.analysis.compare import cell

    def fail(recipe, console):
        raise ValueError(f"no {recipe.adapter.method}")

    monkeypatch.setattr(cell, "train", fail)
    words = ["--methods", "lora,moka", "--seeds", "1", "--equal", "rank", "--out", str(tmp_path)]
    assert call(["compare", str(recipe), *words]) == 1
    shown = capsys.readouterr().err.splitlines()
    assert shown[0].startswith("moka: lora-r2-seed0-") and ": ValueError: no lora (" in shown[0]
    assert shown[-1] == "moka: 2 of 2 runs failed. Repeat the command to try them again."
    assert len(shown) == 3 and len(reports) == 1


def test_beside_an_axis_tables_at_equal_cost_are_asked_for(recipe, tmp_path, reports):
    words = ["compare", str(recipe), "--methods", "lora,moka", "--report-only", "--out", str(tmp_path)]
    assert call([*words, "--vary", "adapter.r=1,2", "--vary", "adapter.cross_scale=[1.0],0.5"]) == 0
    assert call([*words, "--vary", "adapter.r=1,2", "--equal", "rank"]) == 0
    assert call(words) == 0
    names = [[table.name for table in tables] for tables, _, _ in reports]
    assert names == [
        ["adapter.r", "adapter.cross_scale"],
        ["equal rank", "adapter.r"],
        ["equal rank", "equal parameters"],
    ]


def test_runs_go_beside_the_recipes_own_folder(recipe, reports):
    assert call(["compare", str(recipe), "--methods", "lora", "--report-only", "--seeds", "1"]) == 0
    [(_, folder, _)] = reports
    assert str(folder) == f"{load_recipe(recipe).output_dir}_compare/reports/recipe"
