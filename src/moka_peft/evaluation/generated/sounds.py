"""Made-up benchmarks of recordings: mmau, air_bench."""

from pathlib import Path

import numpy as np

from moka_peft.data.generated.encoding import write_sound
from moka_peft.data.generated.scenes import NUMBERS, PITCHES_HZ, Scene, draw_scene, sound_of
from moka_peft.data.generated.texts import write_json
from moka_peft.evaluation.generated.choices import LETTERS, choices_with, deal

SECONDS = 2.0
MMAU_TASKS = {"speech": "mustard", "sound": "AudioSet", "music": "guitarset"}
DIFFICULTIES = ("easy", "medium", "hard")
AIR_BENCH_TASKS = (  # task, dataset, choices
    ("Speaker_Number_Verification", "voxceleb1", 4),
    ("Synthesized_Voice_Detection", "fake_or_real", 2),
    ("Audio_Grounding", "AudioGrounding", 3),
)


def write_mmau(root: Path, samples: int, seed: int) -> None:
    """Questions of the three tasks about notes."""
    rng, rows = np.random.default_rng(seed), []
    for index, (task, dataset) in deal(samples, [*MMAU_TASKS.items()]):
        scene, name = draw_scene(rng, index), f"{seed:08x}-0000-4000-8000-{index:012x}"
        write_sound(root / "test-mini-audios" / f"{name}.wav", sound_of(scene, SECONDS))
        question, right, words = _question(scene, index)
        about = {"category": "Reasoning", "sub-category": "Counting", "difficulty": DIFFICULTIES[index % 3]}
        choices = choices_with(right, words, len(words), index)
        told = {"question": question, "choices": choices, "answer": right, "dataset": dataset, "task": task}
        rows.append({"id": name, "audio_id": f"./test-mini-audios/{name}.wav", **told, "split": "test-mini", **about})
    write_json(root / "mmau-test-mini.json", rows)


def write_air_bench(root: Path, samples: int, seed: int) -> None:
    """Questions of two speech tasks and of a sound task about notes, with two, three and four choices."""
    rng, rows = np.random.default_rng(seed), []
    for index, (task, dataset, count) in deal(samples, AIR_BENCH_TASKS):
        scene, number = draw_scene(rng, index), 1000 * seed + index
        ending = ".flac" if task == "Audio_Grounding" else ".wav"  # its rows say .wav all the same
        write_sound(root / f"{task}_{dataset}" / f"{number:06d}{ending}", sound_of(scene, SECONDS))
        choices = choices_with(NUMBERS[scene.notes], NUMBERS, count, index)
        listed = {f"choice_{letter.lower()}": choice for letter, choice in zip(LETTERS, choices, strict=False)}
        asked = {"path": f"{number:06d}.wav", "question": "How many notes are played?", **listed}
        told = {"answer_gt": NUMBERS[scene.notes], "task_name": task, "dataset_name": dataset, "uniq_id": number}
        rows.append(asked | told)
    write_json(root / "Foundation_meta.json", rows)


def _question(scene: Scene, way: int) -> tuple[str, str, list[str]]:
    """A question for the number of notes or for their pitch, its answer, and the words to choose among."""
    if way % 2:
        return "Which pitch do the notes have?", scene.pitch, list(PITCHES_HZ)
    return "How many notes are played?", NUMBERS[scene.notes], list(NUMBERS)
