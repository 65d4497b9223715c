"""The arithmetic of adapter time on a case made by hand."""

from moka_peft.analysis.speed import adapter_seconds, compare
from moka_peft.analysis.speed.comparison import provider_facts, rounded, spread

SECONDS = {
    "base": [1.0, 2.0, 1.0],
    "base again": [1.0, 2.0, 3.0],  # a round's base is the mean: 1, 2, 2
    "lora": [3.0, 4.0, 4.0],  # 2, 2, 2
    "moka": [2.0, 2.5, 2.5],  # 1, 0.5, 0.5
}


def test_adapter_seconds_are_paired_by_round():
    assert adapter_seconds(SECONDS, "lora") == [2.0, 2.0, 2.0]
    assert adapter_seconds(SECONDS, "moka") == [1.0, 0.5, 0.5]
    assert adapter_seconds({"base": [1.0], "lora": [1.5]}, "lora") == [0.5]


def test_ours_over_theirs():
    found = compare(SECONDS, "moka", "lora")
    assert found["total"] == 2.5 / 4
    assert found["total_by_round"] == {"median": 0.625, "low": 0.625, "high": rounded((0.625 + 2 / 3) / 2)}
    assert found["adapter"] == 0.25
    assert found["adapter_by_round"] == {"median": 0.25, "low": 0.25, "high": 0.375}
    assert found["their_share_of_base"] == 2.0  # of the base's median, which is 1


def test_no_ratio_where_theirs_takes_no_time():
    found = compare({**SECONDS, "lora": [0.5, 1.0, 1.0]}, "moka", "lora")
    assert found["adapter"] is None and found["adapter_by_round"] is None and found["total"] == 2.5


def test_facts_of_each_provider():
    facts = provider_facts(SECONDS)
    assert facts["base"] == {"seconds": 1.0} and facts["base again"] == {"seconds": 2.0}
    assert facts["moka"]["adapter_seconds"] == {"median": 0.5, "low": 0.5, "high": 0.75}
    assert facts["moka"]["adapter_share_of_base"] == 0.5


def test_a_single_round_has_no_spread():
    assert spread([1.23456]) == {"median": 1.235, "low": 1.235, "high": 1.235}
