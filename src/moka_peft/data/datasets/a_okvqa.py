"""A-OKVQA: questions about pictures of COCO that take knowledge, with four choices (Schwenk et al., ECCV 2022).

    ROOT/aokvqa_v1p0_{train,val}.json
    ROOT/{train,val}2017/{image_id:012d}.jpg    # COCO's pictures of 2017; or ROOT/coco/

The answer is the letter of the right choice. The test split is published without answers.
"""

from dataclasses import dataclass
from pathlib import Path
from string import ascii_uppercase
from typing import Any

from moka_peft.data.containers.contents import Container
from moka_peft.data.containers.json_list import StreamedJsonList
from moka_peft.data.containers.rewritten import Rewritten
from moka_peft.data.datasets.layout import Layout, first_medium, one_turn, text_field
from moka_peft.data.formats.row import Row

PROMPT = (
    "This is an image:\n<image>\nPlease answer this question: {question}\n{choices}\n"
    "Reply with the letter of the right choice."
)


def open_a_okvqa(root: Path, split: str = "train") -> list[Container]:
    """The questions of a split."""
    path = Layout("a_okvqa", root).find("the annotation file", f"aokvqa_v1p0_{split}.json")
    return [Rewritten(StreamedJsonList(path), Choice(split), root)]


@dataclass(frozen=True)
class Choice:
    """Makes a conversation of a question with choices."""

    split: str
    prompt: str = PROMPT

    def __call__(self, row: Row) -> dict[str, Any]:
        question, choices = text_field(row, "question"), _choices(row)
        right = row.data.get("correct_choice_idx")
        if isinstance(right, bool) or not isinstance(right, int) or not 0 <= right < len(choices):
            raise row.fail("correct_choice_idx", f"expected 0 to {len(choices) - 1}, got {right!r}. Correct the row.")
        name = f"{self.split}2017/{_number(row):012d}.jpg"
        listed = "\n".join(f"{letter}. {choice}" for letter, choice in zip(ascii_uppercase, choices, strict=False))
        return one_turn(
            row,
            self.prompt.format(question=question, choices=listed),
            ascii_uppercase[right],
            images=[first_medium(row, "image_id", [name, f"coco/{name}"])],
        ) | {"id": text_field(row, "question_id")}


def _choices(row: Row) -> list[str]:
    choices = row.data.get("choices")
    if not isinstance(choices, list) or len(choices) < 2 or not all(isinstance(choice, str) for choice in choices):
        raise row.fail("choices", f"expected a list of texts, got {choices!r}. Correct the row.")
    return choices


def _number(row: Row) -> int:
    written = text_field(row, "image_id")
    if not written.isdecimal():
        raise row.fail("image_id", f"expected COCO's number of a picture, got {written!r}. Correct the row.")
    return int(written)
