"""LibriSQA: questions about LibriSpeech's recordings (Zhao et al., arXiv 2308.10390).

    ROOT/LibriSQA-PartI/LibriSQA-PartI-{train,test}.json        # part: 1, free answers
    ROOT/LibriSQA-PartII/LibriSQA-PartII-{train,test}.json      # part: 2, four choices
    ROOT/LibriSpeech/train-clean-360/...                        # the recordings of train
    ROOT/LibriSpeech/test-clean/...                             # the recordings of test

`speech_path` in the files names a .wav; the recording is found by its last part, which says speaker and chapter, and is
the .flac of LibriSpeech or a .wav beside it.
"""

from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from moka_peft.data.containers.contents import Container
from moka_peft.data.containers.json_list import StreamedJsonList
from moka_peft.data.containers.rewritten import Rewritten
from moka_peft.data.datasets.layout import Layout, first_medium, one_turn, text_field
from moka_peft.data.formats.row import Row

PROMPT = "This is an audio:\n<audio>\nPlease answer this question: {question}"
PROMPTS = {1: PROMPT, 2: PROMPT + "\nReply with the letter of the right choice."}
SPEECH = {"train": "train-clean-360", "test": "test-clean"}
NUMERALS = {1: "I", 2: "II"}


def open_libri_sqa(root: Path, split: str = "train", *, part: int = 1) -> list[Container]:
    """The questions of a split of Part I (free answers) or Part II (answered by the letter of a choice)."""
    name = f"LibriSQA-Part{NUMERALS[part]}"
    path = Layout("libri_sqa", root).find("the annotation file", f"{name}/{name}-{split}.json", f"{name}-{split}.json")
    return [Rewritten(StreamedJsonList(path), SpokenQuestion(part, SPEECH[split], PROMPTS[part]), root)]


@dataclass(frozen=True)
class SpokenQuestion:
    """Makes a conversation of a question about a recording."""

    part: int
    folder: str
    prompt: str

    def __call__(self, row: Row) -> dict[str, Any]:
        question = text_field(row, "question" if self.part == 1 else "question_and_option")
        heard = _find_recording(row, text_field(row, "speech_path"), self.folder)
        return one_turn(row, self.prompt.format(question=question), text_field(row, "answer"), audios=[heard])


def _find_recording(row: Row, written: str, folder: str) -> str:
    stem = PurePosixPath(written.replace("\\", "/")).stem
    parts = stem.split("-")
    if len(parts) != 3:
        raise row.fail("speech_path", f"expected SPEAKER-CHAPTER-NUMBER.wav, got {written!r}. Correct the row.")
    place = f"LibriSpeech/{folder}/{parts[0]}/{parts[1]}/{stem}"
    return first_medium(row, "speech_path", [f"{place}.flac", f"{place}.wav"])
