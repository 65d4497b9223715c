import pytest

from moka_peft.analysis.compare.lines import find_baseline, summarise
from moka_peft.analysis.compare.results import Row, Table


def rows(make_runs, *places, **changes):
    return tuple(Row(label, variant, value, make_runs(variant, scores=[0.5, 0.6])) for label, variant, value in places)


def test_baseline_at_the_same_value_of_the_axis(make_runs):
    places = ("lora", "lora", 4), ("lora", "lora", 8), ("moka", "moka", 8), ("moka", "moka", 16)
    table = Table("rank", "adapter.r", "lora", rows(make_runs, *places))
    assert [find_baseline(table, row) for row in table.rows] == [*table.rows[:2], table.rows[1], None]


def test_one_baseline_that_the_axis_does_not_touch(make_runs):
    table = Table("scale", "adapter.cross_scale", "lora", rows(make_runs, ("lora", "lora", None), ("moka", "moka", 2)))
    assert find_baseline(table, table.rows[1]) is table.rows[0]


def test_a_baseline_at_another_value_of_the_axis_is_none(make_runs):
    """Of LoRA only 100 steps are finished yet: MokA's 200 have nothing to be compared with."""
    places = ("lora", "lora", 100), ("moka", "moka", 100), ("moka", "moka", 200)
    table = Table("steps", "training.steps", "lora", rows(make_runs, *places))
    assert [find_baseline(table, row) for row in table.rows] == [table.rows[0], table.rows[0], None]
    assert summarise(table)[2].verdict == "no baseline"


def test_label_comes_before_variant(make_runs):
    places = ("LoRA, r 8", "lora", None), ("LoRA, r 15", "lora", None), ("moka", "moka", None)
    table = Table("equal parameters", None, "LoRA, r 15", rows(make_runs, *places))
    assert [find_baseline(table, row) for row in table.rows] == [table.rows[1]] * 3


def test_numbers_of_a_line(make_table):
    table = make_table({"lora": [0.5, 0.7], "moka": [0.7, 0.8]}, groups={"Audio": 0.25}, settings={"adapter.r": 4})
    lora, moka = summarise(table)
    assert lora.is_baseline and lora.difference is None and lora.verdict == "baseline"
    assert moka.against == "lora" and moka.difference.mean == pytest.approx(0.15)
    assert (moka.rank, moka.parameters, moka.seconds_ratio) == (4, 34_816, 1.0)
    assert moka.groups["Audio"].mean == 0.25 and moka.groups["Audio"].count == 2
    assert moka.p_adjusted == moka.difference.p


def test_only_groups_of_all_seeds_are_shown(make_table):
    table = make_table({"lora": [0.5, 0.7]}, groups={"Audio": 0.25})
    table.rows[0].results[1].groups.clear()
    assert summarise(table)[0].groups == {}


@pytest.mark.parametrize(
    ("scores", "metric", "verdict"),
    [
        ([0.70, 0.81, 0.90], "exact_match", "better, seeds only"),
        ([0.70, 0.81, 0.90], "wer", "worse, seeds only"),
        ([0.30, 0.41, 0.50], "wer", "better, seeds only"),
        ([0.30, 0.41, 0.90], "exact_match", "unclear"),
        ([0.30], "exact_match", "too few seeds"),
        ([0.60, 0.70, 0.80], "exact_match", "no interval"),
    ],
)
def test_verdict(make_table, scores, metric, verdict):
    table = make_table({"lora": [0.5, 0.6, 0.7], "moka": scores}, metric=metric)
    assert summarise(table)[1].verdict == verdict


def test_verdict_needs_both_intervals(make_runs):
    right = [[1.0] * 40, [1.0] * 39 + [0.0], [1.0] * 38 + [0.0] * 2]
    wrong = [[0.0] * 20 + [1.0] * 20] * 3
    ours = Row("moka", "moka", None, make_runs("moka", points=right))
    theirs = Row("lora", "lora", None, make_runs("lora", points=wrong))
    assert summarise(Table("all", None, "lora", (theirs, ours)))[1].verdict == "better"


def test_verdict_without_a_baseline(make_table):
    assert summarise(make_table({"dora": [0.5, 0.6]}))[0].verdict == "no baseline"


def test_rows_without_a_run_are_left_out(make_table):
    assert [line.label for line in summarise(make_table({"lora": [0.5], "moka": []}))] == ["lora"]


def test_rank_is_that_of_the_run(make_runs):
    runs = make_runs("moka", points=[[1, 0], [1, 1]])
    (runs[0].folder / "recipe.yaml").write_text("adapter: {method: moka, r: 4}\n")
    table = Table("all", None, "lora", (Row("MokA", "moka", None, runs),))
    assert summarise(table)[0].rank == 4
    (runs[0].folder / "recipe.yaml").write_text("adapter: {method: none, r: 4}\n")
    assert summarise(table)[0].rank is None


def test_labels_name_the_value_and_baselines_all_of_their_like(make_runs):
    places = ("LoRA", "lora", 4), ("LoRA", "lora", 8), ("MokA", "moka", 8)
    lines = summarise(Table("adapter.r", "adapter.r", "lora", rows(make_runs, *places)))
    assert [line.label for line in lines] == ["LoRA, r 4", "LoRA, r 8", "MokA, r 8"]
    assert lines[2].against == "LoRA at the same r" and lines[2].method == "MokA"
