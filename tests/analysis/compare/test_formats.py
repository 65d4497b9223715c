import pytest

from moka_peft.analysis.compare import formats
from moka_peft.analysis.compare.statistics import Spread


@pytest.mark.parametrize(
    ("value", "metric", "sign", "shown"),
    [
        (0.83041, "exact_match", False, "83.04"),
        (0.051, "contains", True, "+5.10"),
        (-0.051, "contains", True, "−5.10"),
        (-0.000001, "exact_match", True, "0.00"),
        (0.12345, "wer", False, "0.1235"),
    ],
)
def test_score(value, metric, sign, shown):
    assert formats.score(value, metric, sign=sign) == shown


def test_spread_and_interval():
    assert formats.spread(Spread(0.8, 0.0123, 3), "exact_match") == "80.00 ± 1.23"
    assert formats.spread(Spread(0.8, None, 1), "exact_match") == "80.00"
    assert formats.interval((-0.01, 0.02), "exact_match") == "−1.00 to +2.00"
    assert formats.interval(None, "exact_match") == "–"


@pytest.mark.parametrize(
    ("write", "value", "shown"),
    [
        (formats.count, 9999, "9999"),
        (formats.count, 34_816, "34.8 k"),
        (formats.count, 1_330_000, "1.33 M"),
        (formats.count, 999_999, "1 M"),
        (formats.count, None, "–"),
        (formats.size, 512, "512 B"),
        (formats.size, 31 * 2**20, "31 MiB"),
        (formats.size, 1023 * 2**20, "1023 MiB"),
        (formats.size, 2**40, "1 TiB"),
        (formats.seconds, 59.96, "60.0 s"),
        (formats.seconds, 180, "3.0 min"),
        (formats.seconds, 9000, "2.5 h"),
        (formats.ratio, 1.049, "1.05×"),
        (formats.p_value, 0.0004, "< 0.001"),
        (formats.p_value, 0.0449, "0.045"),
        (formats.p_value, None, "–"),
    ],
)
def test_units(write, value, shown):
    assert write(value) == shown
