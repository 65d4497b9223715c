"""Tables of the report, which the reader can sort by any column."""

from collections.abc import Sequence

from moka_peft.analysis.compare import formats
from moka_peft.analysis.compare.columns import Column, Key
from moka_peft.analysis.compare.lines import Line
from moka_peft.analysis.compare.report.markup import Markup, tag


def draw_grid(name: str, caption: str, columns: Sequence[Column], lines: Sequence[Line]) -> Markup:
    """A table of lines; `name` is its id in the page."""
    heads = [(column.name, column.is_words) for column in columns]
    rows = [[(column.show(line), column.key(line)) for column in columns] for line in lines]
    classes = ["own" if line.is_baseline else line.mood for line in lines]
    return draw_cells(name, caption, heads, rows, classes)


def draw_cells(
    name: str,
    caption: str,
    heads: Sequence[tuple[str, bool]],
    rows: Sequence[Sequence[tuple[str, Key]]],
    classes: Sequence[str | None] = (),
) -> Markup:
    """A table of cells, each what is shown and what it is sorted by; heads: a column's name, whether it holds words."""
    buttons = [
        tag("th", tag("button", head, type="button"), scope="col", class_="words" if is_words else None)
        for head, is_words in heads
    ]
    body = [
        tag("tr", *map(_cell, row, (is_words for _, is_words in heads)), class_=class_)
        for row, class_ in zip(rows, classes or [None] * len(rows), strict=True)
    ]
    table = tag("table", tag("caption", caption), tag("thead", tag("tr", *buttons)), tag("tbody", *body), id=name)
    return tag("div", table, class_="scroll", tabindex=0, role="region", aria_label=caption)


def _cell(cell: tuple[str, Key], is_words: bool) -> Markup:
    shown, key = cell
    return tag("td", shown, data_key="" if key is None else _exact(key), class_="words" if is_words else None)


def _exact(key: Key) -> str:
    return repr(key) if isinstance(key, float) else str(key)


RUN_HEADS = (
    ("method", True), ("seed", False), ("score", False), ("loss", False), ("seconds", False), ("steps", False),
    ("memory", False), ("trained parameters", False), ("run", True),
)  # fmt: skip


def draw_runs(name: str, caption: str, lines: Sequence[Line]) -> Markup:
    """Every run of some lines."""
    rows = []
    for line in lines:
        for seed, run in sorted(line.results.items()):
            loss = formats.NONE if run.loss is None else f"{run.loss:.4f}"
            cells = [(line.label, line.label), (str(seed), seed), (formats.score(run.score, run.metric), run.score)]
            cells += [(loss, run.loss), (f"{run.seconds:.1f}", run.seconds), (str(run.steps), run.steps)]
            cells += [(formats.size(run.peak_bytes), run.peak_bytes)]
            rows.append([*cells, (f"{run.trained_parameters:,}", run.trained_parameters), (run.cell, run.cell)])
    return draw_cells(name, caption, RUN_HEADS, rows)
