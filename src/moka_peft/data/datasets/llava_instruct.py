"""LLaVA-Instruct-150K: conversations about pictures of COCO (Liu et al., NeurIPS 2023).

    ROOT/llava_instruct_150k.json
    ROOT/train2017/{image}                  # COCO's training pictures of 2017; or ROOT/coco/train2017/

`turns: single` makes a sample of every question, asked with the picture in front and in the words of MokA's authors;
`turns: multi` keeps the conversations.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moka_peft.data.containers.contents import Container
from moka_peft.data.containers.json_list import StreamedJsonList
from moka_peft.data.containers.rewritten import Rewritten
from moka_peft.data.datasets.layout import Layout, first_medium, text_field
from moka_peft.data.datasets.single_turns import SingleTurns
from moka_peft.data.formats.row import Row

REQUEST = "Please answer this question: {question}"
FOLDERS = ("train2017", "coco/train2017")


def open_llava_instruct(root: Path, split: str = "train", *, turns: str = "multi") -> list[Container]:
    """The conversations, all of which are for training."""
    path = Layout("llava_instruct", root).find("the annotation file", "llava_instruct_150k.json")
    rows = StreamedJsonList(path)
    split_rows = SingleTurns(rows, REQUEST) if turns == "single" else rows
    return [Rewritten(split_rows, CocoPicture(), root)]


@dataclass(frozen=True)
class CocoPicture:
    """Finds a conversation's picture in COCO's folder."""

    def __call__(self, row: Row) -> dict[str, Any]:
        name = text_field(row, "image")
        return {**row.data, "image": first_medium(row, "image", [*(f"{folder}/{name}" for folder in FOLDERS), name])}
