"""LibriSpeech: read English, written down (Panayotov et al., ICASSP 2015).

    ROOT/LibriSpeech/{split}/{speaker}/{chapter}/{speaker}-{chapter}-{number}.flac
    ROOT/LibriSpeech/{split}/{speaker}/{chapter}/{speaker}-{chapter}.trans.txt

Splits are the folders' names; `train` is all three folders of training speech together, `val` dev-clean, `test`
test-clean. The texts, published in capitals, are given in small letters, which language models know better.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moka_peft.data.containers.chapters import Chapters
from moka_peft.data.containers.contents import Container
from moka_peft.data.containers.rewritten import Rewritten
from moka_peft.data.datasets.layout import Layout, one_turn, text_field
from moka_peft.data.formats.row import Row

PROMPT = "This is an audio:\n<audio>\nWrite down what is said in it."
TRAIN = ("train-clean-100", "train-clean-360", "train-other-500")
FOLDERS = {"train": TRAIN, "val": ("dev-clean",), "test": ("test-clean",)}
FOLDERS |= {name: (name,) for name in (*TRAIN, "dev-clean", "dev-other", "test-clean", "test-other")}


def open_librispeech(root: Path, split: str = "train") -> list[Container]:
    """The recordings of a split. Raises FileNotFoundError where one of its folders has no transcript."""
    return [Rewritten(_open_folder(root, name), Transcript(), root) for name in FOLDERS[split]]


def _open_folder(root: Path, name: str) -> Chapters:
    chapters = Chapters(root / "LibriSpeech" / name)
    if not len(chapters):
        raise Layout("librispeech", root).missing("a transcript", f"LibriSpeech/{name}/SPEAKER/CHAPTER/*.trans.txt")
    return chapters


@dataclass(frozen=True)
class Transcript:
    """Makes a conversation of a recording and what is said in it."""

    prompt: str = PROMPT

    def __call__(self, row: Row) -> dict[str, Any]:
        name, said = text_field(row, "name"), text_field(row, "text")
        audio = str(Path(row.data["folder"]) / f"{name}.flac")
        return one_turn(row, self.prompt, said.lower(), audios=[audio]) | {"id": name}
