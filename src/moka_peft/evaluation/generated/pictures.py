"""Made-up benchmarks of pictures: mme, mmbench, pope, seed_bench."""

import base64
import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from moka_peft.data.generated.encoding import write_picture, write_video
from moka_peft.data.generated.scenes import COLOURS, NUMBERS, Scene, draw_scene, frames_of, picture_of, sound_of
from moka_peft.data.generated.texts import write_text
from moka_peft.evaluation.generated.choices import LETTERS, choices_with, deal
from moka_peft.evaluation.pope import SPLITS

SECONDS = 2.0
APART = ("posters", "celebrity", "scene", "landmark", "artwork")  # pictures and texts in folders of their own
MME_SUBTASKS = ("existence", "count", "position", "color", *APART, "OCR")
MMBENCH_FILE = "mmbench_dev_20230712.tsv"
MMBENCH_COLUMNS = ("index", "question", "hint", *LETTERS, "answer", "category", "image", "source", "split")
MMBENCH_CATEGORIES = ("attribute_recognition", "object_localization")
SEED_TYPES = {"Instance Attributes": 3, "Instances Counting": 5, "Action Recognition": 10, "Action Prediction": 11}


def write_mme(root: Path, samples: int, seed: int) -> None:
    """Pictures of ten subtasks, each with a question whose answer is yes and one whose answer is no."""
    rng = np.random.default_rng(seed)
    for index, subtask in deal(samples // 2, MME_SUBTASKS):
        scene, name, place = draw_scene(rng, index), f"{1000 * seed + index:012d}", root / subtask
        images, texts = (place / "images", place / "questions_answers_YN") if subtask in APART else (place, place)
        write_picture(images / f"{name}.jpg", picture_of(scene))
        pair = list(zip(_yes_and_no(scene, index % len(MME_SUBTASKS)), ("Yes", "No"), strict=True))
        lines = [f"{asked} Please answer yes or no.\t{answer}\n" for asked, answer in pair[:: -1 if index % 2 else 1]]
        write_text(texts / f"{name}.txt", "".join(lines))


def _yes_and_no(scene: Scene, way: int) -> tuple[str, str]:
    """A question for yes and one for no, asked in one of four ways."""
    other, more = next(colour for colour in COLOURS if colour != scene.colour), NUMBERS[1 + scene.bars % 3]
    return [
        (f"Is there a {scene.colour} bar in this image?", f"Is there a {other} bar in this image?"),
        (f"Is the number of bars in this image {NUMBERS[scene.bars]}?", f"Is the number of bars in this image {more}?"),
        ("Do the bars begin on the left of the image?", "Do the bars begin on the right of the image?"),
        (f"Is the color of the bars {scene.colour}?", f"Is the color of the bars {other}?"),
    ][way % 4]


def write_mmbench(root: Path, samples: int, seed: int) -> None:
    """Questions with four choices or two; each fourth has the picture of an earlier row, by the index of that row."""
    rng, rows = np.random.default_rng(seed), []
    scenes = [draw_scene(rng, index) for index in range(samples)]
    for index in range(samples):
        shown = index - 3 if index % 4 == 3 else index
        asked, right, words = _question(scenes[shown], index)
        choices = choices_with(right, words, 2 if index % 4 == 1 else 4, index)
        about = {"index": 1000 * seed + index, "category": MMBENCH_CATEGORIES[index % 2], "split": "dev"}
        told = {"question": asked, "hint": "Look at the bars." if index % 2 else "", "source": "made up"}
        listed = dict(zip(LETTERS, choices, strict=False)) | {"answer": LETTERS[choices.index(right)]}
        image = base64.b64encode(_jpeg(scenes[index])).decode() if shown == index else str(1000 * seed + shown)
        rows.append(about | told | listed | {"image": image})
    text = io.StringIO()
    writer = csv.DictWriter(text, MMBENCH_COLUMNS, restval="", delimiter="\t", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(root / MMBENCH_FILE, text.getvalue())


def _question(scene: Scene, way: int) -> tuple[str, str, Sequence[str]]:
    """A question for the colour of the bars or for their number, its answer, and the words to choose among."""
    if way % 2:
        return "How many bars are there?", NUMBERS[scene.bars], NUMBERS
    return "Which color do the bars have?", scene.colour, list(COLOURS)


def _jpeg(scene: Scene) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture_of(scene)).save(file, "JPEG", quality=90)
    return file.getvalue()


def write_pope(root: Path, samples: int, seed: int) -> None:
    """Questions of three splits whether there are bars of a colour."""
    rng = np.random.default_rng(seed)
    rows: dict[str, list[dict[str, Any]]] = {split: [] for split in SPLITS}
    for index, split in deal(samples, SPLITS):
        scene, image = draw_scene(rng, index), f"COCO_val2014_{1000 * seed + index:012d}.jpg"
        write_picture(root / "val2014" / image, picture_of(scene))
        asked, label = _yes_and_no(scene, 0)[index % 2], ("yes", "no")[index % 2]
        rows[split].append({"question_id": len(rows[split]) + 1, "image": image, "text": asked, "label": label})
    for split in SPLITS:
        write_text(root / f"coco_pope_{split}.json", "".join(json.dumps(row) + "\n" for row in rows[split]))


def write_seed_bench(root: Path, samples: int, seed: int) -> None:
    """Questions of four types with four choices: two of pictures, one of videos, and one of a video's frames."""
    rng, rows = np.random.default_rng(seed), []
    for index, kind in deal(samples, [*SEED_TYPES.values()]):
        scene, name = draw_scene(rng, index), f"{seed}_{index:010d}"
        asked, right, words = _question(scene, int(kind == SEED_TYPES["Instances Counting"]))
        choices = choices_with(right, words, 4, index)
        listed = {f"choice_{letter.lower()}": choice for letter, choice in zip(LETTERS, choices, strict=True)}
        about = {"data_id": _write_seed_medium(root, kind, name, scene), "data_type": "image" if kind < 10 else "video"}
        told = {"question_id": str(1000 * seed + index), "question": asked, "answer": LETTERS[choices.index(right)]}
        rows.append(told | listed | about | {"question_type_id": kind})
    write_text(root / "SEED-Bench.json", json.dumps({"questions": rows, "question_type": SEED_TYPES}, indent=1))


def _write_seed_medium(root: Path, kind: int, name: str, scene: Scene) -> str | list[str]:
    """What a question of a type is about; returns its `data_id`: a name, without an ending for a picture, or names."""
    if kind < 10:
        path = root / "SEED-Bench-image" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_jpeg(scene))
        return name
    if kind == SEED_TYPES["Action Recognition"]:
        write_video(root / "videos" / f"{name}.mp4", frames_of(scene, SECONDS), sound_of(scene, SECONDS))
        return f"{name}.mp4"
    names = [f"{name}_{number}.png" for number in range(2)]
    for number, frame in enumerate(names):
        write_picture(root / "v1_video" / frame, picture_of(scene, 8 * number))
    return names
