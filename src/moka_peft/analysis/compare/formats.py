"""How numbers of a comparison are written: scores in per cent where they are shares, sizes in readable units."""

from moka_peft.analysis.compare.statistics import Interval, Spread
from moka_peft.training.metrics import SHARES

MINUS, NONE = "\N{MINUS SIGN}", "\N{EN DASH}"


def score(value: float, metric: str, *, sign: bool = False) -> str:
    """A score or a difference of scores: shares as per cent with two decimals, other metrics with four."""
    number = f"{100 * value:.2f}" if metric in SHARES else f"{value:.4f}"
    if float(number) == 0:
        number = number.removeprefix("-")
    elif sign and value > 0:
        number = "+" + number
    return number.replace("-", MINUS)


def spread(value: Spread, metric: str) -> str:
    """Mean and standard deviation of a score."""
    mean = score(value.mean, metric)
    return mean if value.sd is None else f"{mean} ± {score(value.sd, metric)}"


def interval(value: Interval | None, metric: str) -> str:
    """Both ends of an interval of a difference."""
    if value is None:
        return NONE
    return " to ".join(score(end, metric, sign=True) for end in value)


def unit(metric: str) -> str:
    """What a score is counted in, for headings."""
    return "%" if metric in SHARES else metric


def p_value(value: float | None) -> str:
    if value is None:
        return NONE
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def count(value: float | None) -> str:
    """A count with an SI prefix from ten thousand on: 12.3 k, 4.56 M."""
    return NONE if value is None else _scaled(value, 1000, ("", " k", " M", " G", " T"), start=10_000)


def size(value: float | None) -> str:
    """Bytes in binary units."""
    return NONE if value is None else _scaled(value, 1024, (" B", " KiB", " MiB", " GiB", " TiB"), start=1024)


def seconds(value: float) -> str:
    """Seconds up to two minutes, then minutes, then hours."""
    if value < 120:
        return f"{value:.1f} s"
    return f"{value / 60:.1f} min" if value < 7200 else f"{value / 3600:.1f} h"


def ratio(value: float | None) -> str:
    return NONE if value is None else f"{value:.2f}×"


def _scaled(value: float, step: int, units: tuple[str, ...], start: int) -> str:
    if value < start:
        return f"{value:.0f}{units[0]}" if float(value).is_integer() else f"{value:.1f}{units[0]}"
    place = 0
    while value >= step - 0.5 and place < len(units) - 1:
        value, place = value / step, place + 1
    return f"{value:.3g}{units[place]}" if value < 1000 else f"{value:.0f}{units[place]}"


def scale(metric: str) -> int:
    """What a score is multiplied by where it is shown."""
    return 100 if metric in SHARES else 1


def tick(value: float, metric: str, *, sign: bool = False) -> str:
    """A round score or difference on an axis, in the fewest digits."""
    number = f"{scale(metric) * value:{'+' if sign and value else ''}.6g}"
    return number.replace("-", MINUS)


def difference_unit(metric: str) -> str:
    return "percentage points" if metric in SHARES else metric
