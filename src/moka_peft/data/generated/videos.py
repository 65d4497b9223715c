"""Made-up datasets of videos with sound: music_avqa, ave, video_llava."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from moka_peft.data.datasets import ave, music_avqa, video_llava
from moka_peft.data.generated.encoding import write_picture, write_sound, write_video
from moka_peft.data.generated.scenes import NUMBERS, Scene, draw_scene, frames_of, picture_of, sound_of
from moka_peft.data.generated.texts import write_json, write_text

SECONDS = 2.0
EVENTS = ("Church bell", "Bark", "Flute", "Male speech, man speaking", "Truck")


def write_music_avqa(root: Path, samples: int, split: str, seed: int, *, reasoning: bool = False) -> None:
    """Questions about how many bars and notes there are; with `reasoning`, in the tree of MokA's authors."""
    rng, rows = np.random.default_rng(seed), []
    for index in range(samples):
        scene, name = draw_scene(rng, index), f"{seed:04d}{index:04d}"
        folder = "video_data" if reasoning else "videos"
        sound = sound_of(scene, SECONDS)
        write_video(root / folder / f"{name}.mp4", frames_of(scene, SECONDS), sound)
        if reasoning:
            write_sound(root / "audio_data" / f"{name}.mp3", sound)
        rows.append(_music_row(scene, name, index, reasoning))
    write_json(root / (music_avqa.AUTHORS["train"] if reasoning else f"json/avqa-{split}.json"), rows)


def _music_row(scene: Scene, name: str, index: int, reasoning: bool) -> dict[str, Any]:
    kinds = [
        (["Visual", "Counting"], "How many <Object> are there in the video?", ["bars"], NUMBERS[scene.bars]),
        (["Audio", "Counting"], "How many <Object> does the <Sense> notice?", ["notes", "ear"], NUMBERS[scene.notes]),
        (
            ["Audio-Visual", "Existential"],
            "Is there a note for each bar?",
            [],
            "yes" if scene.notes >= scene.bars else "no",
        ),
    ]
    types, template, words, answer = kinds[index % len(kinds)]
    row: dict[str, Any] = {"video_id": name, "question_id": index, "type": json.dumps(types)}
    if not reasoning:
        asked = {"question_content": template, "templ_values": json.dumps(words), "question_deleted": 0}
        return row | asked | {music_avqa.PUBLISHED: answer}
    question = template.replace("<Object>", "{}").replace("<Sense>", "{}").format(*words)
    label = f"Bars: {scene.bars}, notes: {scene.notes}. <answer>{answer}</answer>"
    paths = {"video_path": f"video_data/{name}.mp4", "audio_path": f"audio_data/{name}.mp3"}
    return row | paths | {"type": types, "question": question, "answer": answer, "label": label}


def write_ave(root: Path, samples: int, split: str, seed: int, *, reasoning: bool = False) -> None:
    """Videos of three seconds with bars that are shown, and notes that sound, for a second or more."""
    rng, lines = np.random.default_rng(seed), []
    for index in range(samples):
        scene, name, event = draw_scene(rng, index), f"clip-{seed:04d}_{index:04d}", EVENTS[index % len(EVENTS)]
        start = index % 2
        end = start + 1 + int(rng.integers(3 - start))
        sound = sound_of(scene, 3.0, start, end)
        write_video(root / "AVE" / f"{name}.mp4", frames_of(scene, 3.0, start, end), sound)
        if reasoning:
            write_sound(root / "audio_data" / f"{name}.mp3", sound)
            told = f"It begins at second {start}. <event>{event}</event> <range>{start},{end}</range>"
            write_text(root / "converted_label" / f"{name}.txt", told)
        lines.append(f"{event}&{name}&good&{start}&{end}\n")
    write_text(root / ave.FILES[split], "".join(lines))


def write_video_llava(root: Path, samples: int, split: str, seed: int, *, turns: str = "multi") -> None:
    """Captions of pictures and, in turn, of videos."""
    rng, rows = np.random.default_rng(seed), []
    for index in range(samples):
        scene, name = draw_scene(rng, index), f"{seed:04d}{index:05d}"
        kind, path = (
            ("image", f"llava_image/00000/{name}.jpg") if index % 2 == 0 else ("video", f"valley/000001/{name}.mp4")
        )
        if kind == "image":
            write_picture(root / path, picture_of(scene))
        else:
            write_video(root / path, frames_of(scene, SECONDS), sound_of(scene, SECONDS))
        asked = {"from": "human", "value": "What is shown?\n<image>" if kind == "image" else "<video>\nWhat is shown?"}
        told = {"from": "gpt", "value": f"{NUMBERS[scene.bars]} {scene.colour} bar{'s' * (scene.bars > 1)} on grey"}
        rows.append({"id": name, kind: path, "conversations": [asked, told]})
    write_json(root / video_llava.FILE, rows)
