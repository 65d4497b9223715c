"""AVE: ten-second videos with one event that is seen and heard (Tian et al., ECCV 2018).

    ROOT/{trainSet,valSet,testSet}.txt      # split: train, val, test;   category&video id&quality&start&end
    ROOT/Annotations.txt                    # split: all
    ROOT/AVE/{video_id}.mp4
    ROOT/audio_data/{video_id}.mp3          # optional, or .wav: else the video's sound

MokA's authors have {train,test}_samples_ave.json in place of the text files, and a text about each video:

    ROOT/converted_label/{video_id}.txt     # reasoning: true
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moka_peft.data.containers.contents import Container
from moka_peft.data.containers.json_list import StreamedJsonList
from moka_peft.data.containers.rewritten import Rewritten
from moka_peft.data.containers.table import Table
from moka_peft.data.datasets.layout import Layout, first_medium, one_turn, text_field
from moka_peft.data.datasets.music_avqa import find_sound
from moka_peft.data.formats.row import Row

PROMPT = (
    "This is a video:\n<video>\nThis is an audio:\n<audio>\n"
    "Please describe the events and time range that occurred in the video."
)  # MokA's
COLUMNS = ("Category", "VideoID", "Quality", "StartTime", "EndTime")
FILES = {"train": "trainSet.txt", "val": "valSet.txt", "test": "testSet.txt", "all": "Annotations.txt"}
AUTHORS = {"train": "train_samples_ave.json", "test": "test_samples_ave.json"}
KEYS = {"Category": "event", "VideoID": "vid", "StartTime": "start_time", "EndTime": "end_time"}  # theirs


def open_ave(root: Path, split: str = "train", *, reasoning: bool = False) -> list[Container]:
    """The videos of a split; with `reasoning`, answered by the texts of `converted_label`."""
    layout, names = Layout("ave", root), [FILES[split]] + ([AUTHORS[split]] if split in AUTHORS else [])
    path = layout.find("the annotation file", *names)
    rows = StreamedJsonList(path) if path.suffix == ".json" else Table(path, COLUMNS, separator="&", header=False)
    return [Rewritten(rows, Event(reasoning), root)]


@dataclass(frozen=True)
class Event:
    """Makes a conversation of a video: which event it holds, from which second to which."""

    reasoning: bool
    prompt: str = PROMPT

    def __call__(self, row: Row) -> dict[str, Any]:
        keys = KEYS if "vid" in row.data else {name: name for name in KEYS}
        name, event = text_field(row, keys["VideoID"]), text_field(row, keys["Category"])
        start, end = (_second(row, keys[field]) for field in ("StartTime", "EndTime"))
        if start > end:  # the published file has one that begins and ends at 0
            raise row.fail(keys["EndTime"], f"expected {start} or later, got {end}. Correct the row.")
        told = f"<event>{event}</event><range>{start},{end}</range>"
        return one_turn(
            row,
            self.prompt,
            _told_by_authors(row, name) if self.reasoning else told,
            kind=event,
            videos=[first_medium(row, keys["VideoID"], [f"AVE/{name}.mp4"])],
            audios=[find_sound(row, keys["VideoID"], name, ("audio_data", "AVE"))],
        )


def _second(row: Row, field: str) -> int:
    value = text_field(row, field)
    if not value.isdecimal():
        raise row.fail(field, f"expected a whole second, got {value!r}. Correct the row.")
    return int(value)


def _told_by_authors(row: Row, name: str) -> str:
    path = Path(first_medium(row, "converted_label", [f"converted_label/{name}.txt"]))
    text = path.read_text(encoding="utf-8").strip()
    if "<event>" not in text or "<range>" not in text:
        raise row.fail("converted_label", f"`{path}`: expected <event> and <range> in it, got {text!r}. Correct it.")
    return text
