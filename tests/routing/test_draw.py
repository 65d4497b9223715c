import io

import pytest
import torch
from PIL import Image
from rich.console import Console

from moka_peft.routing import Routing
from moka_peft.routing.draw import draw_routing, media_colour
from moka_peft.routing.picture import save_routing_png
from moka_peft.routing.spans import Span, count_media, sketch_row, spans_of

NAMES = ("text", "visual", "audio")
TOKENS = ["<user>", "<i>", "<i>", "Which", " colour", "?\n", "</user>", "red", "<a>", "<pad>"]
ROUTING = Routing(
    torch.tensor([[0, 1, 1, 0, 0, 0, 0, 0, 2, -1]]), torch.tensor([[0, 1, 1, 1, 1, 1, 0, 0, 0, 0]]), NAMES
)


def drawn(routing, tokens):
    console = Console(file=io.StringIO(), width=100)
    console.print(draw_routing(routing, tokens))
    return console.file.getvalue()


def test_spans_leave_padding_out():
    assert spans_of(ROUTING) == [
        Span(0, 0, 0, 1),
        Span(1, 1, 1, 3),
        Span(0, 1, 3, 6),
        Span(0, 0, 6, 8),
        Span(2, 0, 8, 9),
    ]
    assert count_media(ROUTING) == (2, 3)


def test_terminal_shows_media_runs_and_their_keys():
    lines = [line.rstrip() for line in drawn(ROUTING, [TOKENS]).splitlines()]
    assert lines == [
        "<user>",
        " visual x2  turn 1",
        "  attends to: Which colour?",
        "Which colour?\u21b5</user>red",
        " audio x1  in no user turn: attends to nothing",
        "",
        " visual   audio  instruction of turn 1  other text",
        "2 of 3 media tokens attend to an instruction (67%)",
    ]


def test_terminal_shortens_long_keys_and_names_rows():
    modality = torch.tensor([[1, 0], [1, 0]])
    text = drawn(Routing(modality, torch.tensor([[1, 1], [1, 0]])), [["<i>", "word " * 50], ["<i>", "hello"]])
    assert "row 1" in text and "media 1 x1  turn 1 has no instruction: attends to nothing" in text
    assert f"attends to: {'word ' * 20}...".replace(" ", "") in "".join(text.split())


def test_tokens_must_fit():
    with pytest.raises(ValueError, match=r"expected 1 rows of 10 strings, got rows of \[2\]"):
        draw_routing(ROUTING, [["a", "b"]])


def test_png_holds_the_colours_of_what_it_shows(tmp_path):
    save_routing_png(ROUTING, [TOKENS], tmp_path / "one.png")
    long = Routing(torch.tensor([[1, 0, 0, 2]]), torch.tensor([[1, 1, 0, 2]]), NAMES)
    save_routing_png(long, [["<i>", "word " * 90, "$other$ " * 9, "<a>"]], tmp_path / "long.png")
    for name in ("one.png", "long.png"):
        with Image.open(tmp_path / name) as image:
            pixels = {colour for _, colour in image.convert("RGB").getcolors(maxcolors=2**24)}
        wanted = {tuple(bytes.fromhex(media_colour(modality)[1:])) for modality in (1, 2)}
        assert wanted <= pixels


def test_sketch_says_a_row_in_few_words():
    routing = Routing(torch.tensor([[-1, 0, 1, 1, 0]]), torch.tensor([[0, 0, 1, 1, 1]]), ("text", "visual"))
    assert sketch_row(routing) == "text x1, visual of turn 1 x2, instruction of turn 1 x1"
