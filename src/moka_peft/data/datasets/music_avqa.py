"""MUSIC-AVQA: questions about videos of people who make music (Li et al., CVPR 2022).

    ROOT/json/avqa-{train,val,test}.json                   # as in the dataset's repository
    ROOT/videos/{video_id}.mp4                             # or ROOT/video/
    ROOT/audio/{video_id}.mp3                              # optional, or .wav: else the sound of the video

or the tree of MokA's authors, whose training file also has reasoning:

    ROOT/train_samples_with_reasoning_avqa.json, ROOT/test_samples_avqa.json
    ROOT/video_data/{video_id}.mp4
    ROOT/audio_data/{video_id}.mp3
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moka_peft.data.containers.contents import Container
from moka_peft.data.containers.json_list import StreamedJsonList
from moka_peft.data.containers.rewritten import Rewritten
from moka_peft.data.datasets.layout import Layout, first_medium, one_turn, text_field
from moka_peft.data.formats.row import Row

PROMPT = "This is a video:\n<video>\nThis is an audio:\n<audio>\nPlease answer this question: {question}"  # MokA's
AUTHORS = {"train": "train_samples_with_reasoning_avqa.json", "test": "test_samples_avqa.json"}
PUBLISHED = "anser"  # codespell:ignore anser  # the key of the answer, as the dataset spells it
VIDEOS = ("videos", "video_data", "video")
SOUNDS = ("audio", "audio_data", "audios", *VIDEOS)
_BLANK = re.compile(r"<[^<>]*>")


def open_music_avqa(root: Path, split: str = "train", *, reasoning: bool = False) -> list[Container]:
    """The questions of a split; with `reasoning`, those of the authors' file with the text that leads to the answer.

    Raises FileNotFoundError where there is no annotation file, ValueError where a split has no reasoning.
    """
    layout = Layout("music_avqa", root)
    names = [AUTHORS[split]] if split in AUTHORS else []
    if reasoning and split != "train":
        raise ValueError(f"`reasoning` of music_avqa is wrong: only `split: train` has it, got {split}. Remove it.")
    if not reasoning:
        names.insert(0, f"json/avqa-{split}.json")
    path = layout.find("the annotation file", *names)
    return [Rewritten(StreamedJsonList(path), MusicQuestion(reasoning), root)]


@dataclass(frozen=True)
class MusicQuestion:
    """Makes a conversation of a question, its video and the sound of that."""

    reasoning: bool
    prompt: str = PROMPT

    def __call__(self, row: Row) -> dict[str, Any]:
        name = text_field(row, "video_id")
        question = text_field(row, "question") if "question" in row.data else _filled_question(row)
        group, kind = question_types(row)
        return one_turn(
            row,
            self.prompt.format(question=question),
            text_field(row, "label") if self.reasoning else f"<answer>{_answer(row)}</answer>",
            group=group,
            kind=kind,
            videos=[first_medium(row, "video_id", [f"{folder}/{name}.mp4" for folder in VIDEOS])],
            audios=[find_sound(row, "video_id", name, SOUNDS)],
        ) | {"id": f"{name}-{text_field(row, 'question_id')}"}


def find_sound(row: Row, field: str, name: str, folders: tuple[str, ...]) -> str:
    """A video's sound: a recording of its name, or the video itself, of which a collator reads the sound track."""
    endings = ("mp3", "wav", "flac", "mp4")
    return first_medium(row, field, [f"{folder}/{name}.{ending}" for ending in endings for folder in folders])


def _answer(row: Row) -> str:
    return text_field(row, PUBLISHED if PUBLISHED in row.data else "answer")


def question_types(row: Row) -> tuple[str, str]:
    """Which senses a question needs, and what it asks."""
    written = row.data.get("type")
    types = _json_list(row, "type", written) if isinstance(written, str) else written
    if not isinstance(types, list) or len(types) != 2 or not all(isinstance(type, str) for type in types):
        raise row.fail("type", f'expected ["Audio", "Counting"] or the like, got {written!r}. Correct the row.')
    return types[0], types[1]


def _filled_question(row: Row) -> str:
    """The question with the words that stand for its placeholders, in order."""
    question = text_field(row, "question_content")
    words = _json_list(row, "templ_values", row.data.get("templ_values"))
    if len(words) < (blanks := len(_BLANK.findall(question))):
        raise row.fail(
            "templ_values", f"expected {blanks} words for the placeholders of {question!r}, got {words}. Add them."
        )
    rest = iter(words)
    return _BLANK.sub(lambda _: str(next(rest)), question)


def _json_list(row: Row, field: str, written: Any) -> list[Any]:
    try:
        value = json.loads(written)
    except (TypeError, ValueError):
        value = None
    if not isinstance(value, list):
        raise row.fail(field, f"expected a list in JSON, got {written!r}. Correct the row.")
    return value
