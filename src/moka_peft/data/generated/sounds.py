"""Made-up datasets of recordings: audiocaps, librispeech, libri_sqa."""

from pathlib import Path

import numpy as np

from moka_peft.data.datasets import audiocaps, libri_sqa, librispeech
from moka_peft.data.generated.encoding import write_sound
from moka_peft.data.generated.scenes import NUMBERS, Scene, draw_scene, sound_of
from moka_peft.data.generated.texts import write_csv, write_json, write_text

SECONDS = 2.0
FORMATS = ("wav", "flac", "mp3")


def write_audiocaps(root: Path, samples: int, split: str, seed: int) -> None:
    """Captions of notes, in recordings of all three formats; outside of training, two captions for each recording."""
    rows, captions = [], 1 if split == "train" else 2
    for index in range(samples):
        clip = f"clip-{seed:04d}_{index // captions}"
        scene = draw_scene(np.random.default_rng((seed, index // captions)), index // captions)
        if index % captions == 0:
            ending = FORMATS[index // captions % len(FORMATS)]
            write_sound(root / "audio" / split / f"{clip}.{ending}", sound_of(scene, SECONDS))
        rows.append((1000 * seed + index, clip, 30, _caption(scene, index % captions)))
    write_csv(root / "dataset" / f"{split}.csv", audiocaps.COLUMNS, rows)


def write_librispeech(root: Path, samples: int, split: str, seed: int) -> None:
    """Recordings of notes, `said` to be their number; at least one in every folder of the split."""
    folders = librispeech.FOLDERS[split]
    for place, folder in enumerate(folders):
        count = max(1, len(range(place, samples, len(folders))))
        _write_speech(root, folder, count, seed + 10 * place)


def write_libri_sqa(root: Path, samples: int, split: str, seed: int, *, part: int = 1) -> None:
    """Questions for the number of notes."""
    rows, name = [], f"LibriSQA-Part{libri_sqa.NUMERALS[part]}"
    folder = libri_sqa.SPEECH[split]
    for index, (stem, scene) in enumerate(_write_speech(root, folder, samples, seed)):
        speaker, chapter, _ = stem.split("-")
        row = {"speech_path": f"LibriSpeech/{folder}/{speaker}/{chapter}/{stem}.wav", "duration": SECONDS}
        question, answer = "How many notes are played?", f"Notes played: {NUMBERS[scene.notes]}."
        if part == 1:
            rows.append(row | {"question": question, "answer": answer, "text": _notes(scene).upper()})
            continue
        order = [*NUMBERS[index % 4 :], *NUMBERS[: index % 4]]
        letter = "ABCD"[order.index(NUMBERS[scene.notes])]
        listed = " ".join(f"{mark}. {number}" for mark, number in zip("ABCD", order, strict=True))
        told = {"answer": letter, "answer_and_analysis": f"{letter}. {answer}"}
        rows.append(row | {"question_and_option": f"{question} {listed}", **told})
    write_json(root / name / f"{name}-{split}.json", rows)


def _write_speech(root: Path, folder: str, samples: int, seed: int) -> list[tuple[str, Scene]]:
    """Recordings of one chapter with their transcripts; returns what they are called and what they hold."""
    rng, written = np.random.default_rng(seed), []
    speaker, chapter = 1 + seed, 100 + seed
    place = root / "LibriSpeech" / folder / str(speaker) / str(chapter)
    for index in range(samples):
        stem, scene = f"{speaker}-{chapter}-{index:04d}", draw_scene(rng, index)
        write_sound(place / f"{stem}.flac", sound_of(scene, SECONDS))
        written.append((stem, scene))
    lines = [f"{stem} {_notes(scene).upper()}\n" for stem, scene in written]
    write_text(place / f"{speaker}-{chapter}.trans.txt", "".join(lines))
    return written


def _caption(scene: Scene, way: int) -> str:
    """One of two ways to describe a recording."""
    return f"{_notes(scene)} on a quiet ground" if way == 0 else f"silence, then {_notes(scene)}"


def _notes(scene: Scene) -> str:
    return f"{NUMBERS[scene.notes]} {scene.pitch} note{'s' * (scene.notes > 1)}"
