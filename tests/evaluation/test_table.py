"""Tables: what stands in them, and that 80 columns hold the longest that there are."""

from dataclasses import replace

from rich.console import Console

from moka_peft.evaluation import Share, Summary
from moka_peft.evaluation.comparison import NEWCOMBE, Comparison, Contrast, Table
from moka_peft.evaluation.table import comparison_table, details_table, groups_table, summary_table

SHARE = Share(3, 4, 1, 75.0, (30.06, 95.44))
STRICT = Summary("pope", "strict", 74.226, (73.0, 75.456), "%", 8910, 12, 0, None, {"random": SHARE}, {"f1": 1 / 3})
AUTHORS = replace(STRICT, protocol="authors", score=None, interval=None, unparseable=7, dropped=12)
MOKA = Contrast("moka", 8910, 0, Table(10, 1465, 1477, 343), 70.0, 74.23, 4.23, (-1.06, 9.4), NEWCOMBE, 2e-9, 0.0416)


def lines(shown) -> list[list[str]]:
    """The words of each line in a terminal of 80 columns."""
    console = Console(width=80)
    with console.capture() as captured:
        console.print(shown)
    return [line.split() for line in captured.get().splitlines()]


def test_protocols_side_by_side():
    mme = replace(STRICT, score=1025.862, unit="points", partial="2,300 of 2,374 records", unparseable=0)
    both = {"strict": STRICT, "authors": AUTHORS}
    head, _, pope, alone, *notes = lines(summary_table({"pope": both, "mme": {"strict": mme}}))
    assert head == ["benchmark", "strict", "95", "%", "authors", "records", "unparseable", "dropped"]
    assert pope == ["pope", "74.23", "73.00..75.46", "-", "8,910", "12/7", "0/12"]
    assert alone == ["mme*", "1025.86", "73.00..75.46", "-", "8,910", "0", "0"]
    assert [" ".join(note) for note in notes] == ["mme: points", "* mme is partial: 2,300 of 2,374 records"]


def test_groups():
    both = {"strict": STRICT, "authors": replace(AUTHORS, groups={"random": SHARE, "popular": SHARE})}
    head, _, whole, *groups = lines(groups_table(both))
    assert head == ["group", "records", "strict", "95", "%", "authors", "95", "%"]
    assert whole == ["all", "8,910", "74.23", "73.00..75.46", "-", "-"]
    assert groups == [
        ["random", "4", "75.00", "30.06..95.44", "75.00", "30.06..95.44"],
        ["popular", "4", "-", "-", "75.00", "30.06..95.44"],
    ]


def test_details():
    other = replace(AUTHORS, details={"f1": None, "splits": {"random": {"f1": 50.0, "n": 3}}, "none": None})
    table = details_table({"strict": STRICT, "authors": other})
    assert lines(table)[2:] == [["f1", "0.33", "-"], ["splits.random.f1", "-", "50.00"], ["splits.random.n", "-", "3"]]
    assert details_table({"strict": replace(STRICT, details={"splits": None})}) is None


def test_comparison():
    other = replace(MOKA, run="dora", difference=-0.004, interval=None, left_out=3, p=0.5, p_adjusted=0.5)
    title, head, _, moka, dora, *notes = lines(
        comparison_table(Comparison("pope", "strict", "lora", "%", (MOKA, other), {"right": "As a whole."}))
    )
    assert " ".join(title) == "pope, strict: against lora (70.00), in points"
    assert head == ["run", "score", "difference", "95", "%", "better", "worse", "p", "Holm"]
    assert moka == ["moka", "74.23", "+4.23", "-1.06..+9.40", "1,477", "1,465", "<0.001", "0.042"]
    assert dora == ["dora", "74.23", "+0.00", "-", "1,477", "1,465", "0.500", "0.500"]
    told = " ".join(word for note in notes for word in note)
    assert "moka: 8,910 pairs; 10 right in both, 343 in neither; interval: Newcombe's method 10" in told
    assert "dora: 8,910 pairs, 3 left out; " in told and told.endswith("McNemar's exact test As a whole.")
    alone = Comparison("pope", "strict", "lora", "%", (MOKA,), {})
    assert lines(comparison_table(alone))[1][-1] == "p"  # nothing to correct for


def test_the_longest_fit():
    """No line is broken but for long names, and no number is cut."""
    wide = replace(STRICT, score=1999.99, interval=(1888.88, 2000.0), records=12_345, unparseable=9185, dropped=9185)
    groups = {"Audio-Visual/Comparative": replace(SHARE, records=9185, score=100.0, interval=(99.89, 100.0))}
    both = {"strict": wide, "authors": replace(wide, protocol="authors", unparseable=1234, dropped=1234)}
    row = lines(summary_table({"music_avqa": both}))[2]
    assert row == ["music_avqa", "1999.99", "1888.88..2000.00", "1999.99", "12,345", *["9,185/1,234"] * 2]
    usual = {protocol: replace(STRICT, groups=groups) for protocol in both}
    assert lines(groups_table(usual))[3] == ["Audio-Visual/Comparative", "9,185", *["100.00", "99.89..100.00"] * 2]
    far = replace(MOKA, difference=-1234.5, interval=(-1999.99, 1000.5), score=1999.99, p=0.25)
    row = lines(comparison_table(Comparison("mme", "strict", "lora", "points", (far, far), {})))[3]
    assert row == ["moka", "1999.99", "-1234.50", "-1999.99..+1000.50", "1,477", "1,465", "0.250", "0.042"]


def test_names_stay_whole():
    """Long ones are broken, and brackets are no markup."""
    name = "runs/llama2/[red]moka[/red]/benchmarks"
    title, _, _, *rows = lines(
        comparison_table(Comparison("pope", "strict", name, "%", (replace(MOKA, run=name),), {}))
    )
    assert title[3] == name
    assert "".join(row[0] for row in rows).startswith(name + name + ":")
    both = {"strict": replace(STRICT, groups={"[b]": SHARE}, details={"[b]": "[i]"})}
    assert lines(groups_table(both))[3][0] == "[b]" and lines(details_table(both))[2] == ["[b]", "[i]"]
