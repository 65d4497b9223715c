import csv
import json
import re

import pytest

from moka_peft.analysis.compare.report import write_reports
from moka_peft.analysis.compare.results import Row, Table


@pytest.fixture
def written(make_runs, tmp_path):
    groups = {"groups": {"Audio, loud": 0.25}, "settings": {"adapter.r": 4}}
    lora = make_runs("lora", points=[[1, 0, 0, 1], [0, 0, 1, 0]], **groups)
    moka = make_runs("moka", points=[[1, 1, 1, 1], [0, 1, 1, 0]])
    rows = (Row("LoRA", "lora", None, lora), Row("MokA", "moka", None, moka))
    tables = [Table("equal rank", None, "lora", rows), Table("again", None, "lora", rows[:1])]
    empty = Table("not yet", None, "lora", (Row("IMoD", "imod", None, {}),))
    folder = tmp_path / "reports" / "all"
    write_reports([*tables, empty], folder, title="A title", notes=["A note"], settings={"adapter": {"r": 4}})
    return folder


def read(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_every_run_is_one_line_with_all_of_its_result(written):
    rows = read(written / "results.csv")
    assert [row["variant"] for row in rows] == ["lora", "lora", "moka", "moka"]
    first, last = rows[0], rows[-1]
    assert (first["tables"], last["tables"]) == ("equal rank; again", "equal rank")
    assert (float(first["score"]), float(first["group: Audio, loud"]), last["group: Audio, loud"]) == (0.5, 0.25, "")
    assert json.loads(first["settings"]) == {"adapter.r": 4}
    wanted = "cell seed metric questions loss adapter_parameters trained_parameters flops_per_token seconds peak_bytes"
    assert set(wanted.split()) | {"steps", "machine"} <= first.keys()


def test_summary_is_a_line_per_row(written):
    rows = read(written / "summary.csv")
    assert [(row["table"], row["label"]) for row in rows] == [
        ("equal rank", "LoRA"),
        ("equal rank", "MokA"),
        ("again", "LoRA"),
    ]
    moka = rows[1]
    assert float(moka["difference mean"]) == pytest.approx(0.375)
    assert float(moka["difference interval low"]) == pytest.approx(0.375 - 12.7062 * 0.125, abs=1e-4)
    assert float(moka["difference bootstrap low"]) <= 0.375 <= float(moka["difference bootstrap high"])
    assert moka["verdict"] == "unclear" and rows[0]["difference mean"] == ""
    assert float(rows[0]["group: Audio, loud mean"]) == 0.25


def test_json_holds_tables_rows_and_names_of_runs(written):
    data = json.loads((written / "comparison.json").read_text())
    assert (data["title"], data["notes"], data["settings"]) == ("A title", ["A note"], {"adapter": {"r": 4}})
    assert [(table["name"], len(table["rows"])) for table in data["tables"]] == [
        ("equal rank", 2),
        ("again", 1),
        ("not yet", 0),
    ]
    moka = data["tables"][0]["rows"][1]
    assert moka["difference"]["seeds"] == [0, 1] and moka["difference"]["mean"] == pytest.approx(0.375)
    assert moka["cells"]["1"]["cell"].startswith("moka-") and moka["cells"]["1"]["score"] == 0.5


def test_nothing_is_left_half_written(written):
    assert sorted(path.name for path in written.iterdir()) == [
        "comparison.json",
        "report.html",
        "results.csv",
        "summary.csv",
    ]


def test_reports_are_the_same_when_written_again(make_table, tmp_path):
    table = make_table({"lora": [0.5, 0.6], "moka": [0.7, 0.9]})
    for name in ("one", "two"):
        write_reports([table], tmp_path / name, title="t", notes=[], settings={})
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()


def test_a_report_of_no_run_says_so(tmp_path):
    write_reports([Table("rank", None, "lora", ())], tmp_path, title="t", notes=[], settings={})
    assert "No run is finished" in (tmp_path / "report.html").read_text()


def test_page_and_json_hold_the_same_numbers(written):
    """What the page's tables sort by are the numbers themselves; what they show is checked with the formats."""
    page = (written / "report.html").read_text()
    _, moka = json.loads((written / "comparison.json").read_text())["tables"][0]["rows"]
    difference = moka["difference"]
    expected = {
        "scores": [moka["score"]["mean"], 2, moka["rank"], moka["parameters"], moka["seconds"]["mean"]],
        "differences": [difference["mean"], difference["interval"][0], difference["bootstrap"][0], difference["p"]],
    }
    for name, values in expected.items():
        table = page[page.index(f'id="table-1-{name}"') :]
        row = next(row for row in re.findall("<tr.*?</tr>", table) if ">MokA<" in row)
        keys = re.findall('data-key="([^"]*)"', row)
        assert {repr(value) for value in values if value is not None} <= set(keys)


@pytest.mark.parametrize("count", [1, 200])
def test_a_page_of_one_row_and_of_many(make_table, tmp_path, count):
    table = make_table({"lora" if place == 0 else f"m{place}": [0.5, 0.5 + place / 999] for place in range(count)})
    write_reports([table], tmp_path / "out", title="t", notes=[], settings={})
    page = (tmp_path / "out" / "report.html").read_text()
    assert page.count('class="own"') >= 1 and len(re.findall("<td[^>]*>(?:lora|m)", page)) >= count
    assert ("Nothing is compared" in page) == (count == 1)
