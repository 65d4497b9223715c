"""AudioCaps: ten-second recordings of sounds, described (Kim et al., NAACL 2019).

    ROOT/dataset/{train,val,test}.csv       # audiocap_id, youtube_id, start_time, caption; or ROOT/{split}.csv
    ROOT/audio/{split}/{youtube_id}.wav     # or ROOT/audio/; or {audiocap_id}; or .flac, .mp3

Recordings of val and test have five captions, each of which is a sample.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moka_peft.data.containers.contents import Container
from moka_peft.data.containers.rewritten import Rewritten
from moka_peft.data.containers.table import Table
from moka_peft.data.datasets.layout import Layout, first_medium, one_turn, text_field
from moka_peft.data.formats.row import Row

PROMPT = "This is an audio:\n<audio>\nTell what can be heard in it."
COLUMNS = ("audiocap_id", "youtube_id", "start_time", "caption")
ENDINGS = ("wav", "flac", "mp3")


def open_audiocaps(root: Path, split: str = "train") -> list[Container]:
    """The captions of a split."""
    path = Layout("audiocaps", root).find("the annotation file", f"dataset/{split}.csv", f"{split}.csv")
    return [Rewritten(Table(path, COLUMNS), Caption(split), root)]


@dataclass(frozen=True)
class Caption:
    """Makes a conversation of a recording and its caption."""

    split: str
    prompt: str = PROMPT

    def __call__(self, row: Row) -> dict[str, Any]:
        name, clip = text_field(row, "audiocap_id"), text_field(row, "youtube_id")
        folders = (f"audio/{self.split}", "audio")
        places = [f"{folder}/{stem}.{end}" for folder in folders for stem in (clip, name) for end in ENDINGS]
        heard = first_medium(row, "youtube_id", places)
        return one_turn(row, self.prompt, text_field(row, "caption"), audios=[heard]) | {"id": f"audiocaps-{name}"}
