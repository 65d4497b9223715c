import pytest

from moka_peft.analysis.compare.lines import summarise
from moka_peft.analysis.compare.report.words import tell_findings, warn_of_many


def test_findings_name_everybody_once(make_table):
    table = make_table(
        {"lora": [0.5, 0.6, 0.7], "moka": [0.7, 0.81, 0.9], "dora": [0.3, 0.41, 0.5], "imod": [0.4, 0.6, 0.9]}
    )
    assert tell_findings(summarise(table)) == [
        "Better than lora: moka (+20.33, better, seeds only).",
        "Worse than lora: dora (−19.67, worse, seeds only).",
        "Not clearly different from lora: imod (+3.33).",
        "Of 2 differences with p below 0.05, 2 stay there after Holm's correction for the 3 comparisons of this table.",
    ]


def test_nothing_found_is_told(make_table):
    assert tell_findings(summarise(make_table({"dora": [0.5]})))[0].startswith("Nothing is compared")
    told = tell_findings(summarise(make_table({"lora": [0.5], "dora": [0.6]})))
    assert told[-1] == "Not clearly different from lora: dora (+10.00, too few seeds)."


@pytest.mark.parametrize(("count", "chance"), [(1, "0.1"), (20, "1.0")])
def test_warning_counts_tests(make_table, count, chance):
    scores = {"lora": [0.5, 0.6]} | {f"m{place}": [0.6, 0.8] for place in range(count)}
    told = warn_of_many([summarise(make_table(scores))])
    assert f"tests {count} differences" in told and f"about {chance} of them" in told
