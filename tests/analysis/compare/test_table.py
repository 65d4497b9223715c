import io
from dataclasses import replace

import pytest
from rich.console import Console

from moka_peft.analysis.compare.results import Row, Table
from moka_peft.analysis.compare.table import show

METHODS = {"lora": [0.70, 0.73, 0.71], "moka_no_interaction": [0.80, 0.84, 0.82], "[red]odd": [0.5, 0.9, 0.6]}


@pytest.fixture
def printed(make_table):
    def print_at(width, table=None, **changes):
        console = Console(width=width, record=True, color_system=None, file=io.StringIO())
        table = table or make_table(METHODS, groups={"Audio": 0.5, "Visual": 0.7}, settings={"adapter.r": 8}, **changes)
        show([table], console)
        return console.export_text()

    return print_at


def test_one_line_per_method_where_there_is_room(printed):
    text = printed(220)
    line = next(line for line in text.splitlines() if line.startswith("moka_no_interaction"))
    shown = "8 34.8 k 82.00 ± 2.00 3 +10.67 better, seeds only +9.23 to +12.10 – < 0.001 3 50.00 ± 0.00 70.00 ± 0.00"
    assert line.split() == ["moka_no_interaction", *shown.split(), *"40.0 s 1.00× 28.6 MiB 69.6 k".split()]


@pytest.mark.parametrize("width", [220, 100, 80, 50, 40])
def test_every_number_at_every_width(printed, width):
    text = printed(width)
    assert all(len(line.rstrip()) <= width for line in text.splitlines())
    assert "…" not in text
    for value in ("82.00 ± 2.00", "+10.67", "+9.23 to +12.10", "70.00 ± 0.00", "28.6 MiB", "69.6 k", "[red]odd"):
        assert value in text


def test_pieces_name_their_rows(printed):
    names = [line.split()[0] for line in printed(80).splitlines() if line.startswith("moka_no")]
    assert len(names) > 2


def test_axis_value_stands_beside_the_method_in_every_piece(printed, make_table):
    table = make_table(METHODS, axis="adapter.cross_scale", value=0.25)
    table = replace(table, rows=(*table.rows, replace(table.rows[1], value=0.75)))
    found = [line.split()[1] for line in printed(80, table).splitlines() if line.startswith("moka_no")]
    assert found == ["0.25", "0.75"] * (len(found) // 2) and len(found) > 2


def test_title_names_what_is_compared(printed):
    assert "equal rank: exact_match on 4 questions, against lora" in printed(100)
    assert "against lora at the same r" in printed(100, axis="adapter.r", value=4)


def test_what_is_missing_is_said(printed, make_table):
    assert "one seed in common: no interval" in printed(100, make_table({"lora": [0.5], "moka": [0.6]}))
    assert "no run is finished" in printed(100, Table("rank", None, "lora", (Row("lora", "lora", None, {}),)))
