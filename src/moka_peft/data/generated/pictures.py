"""Made-up datasets of pictures: llava_instruct, a_okvqa."""

from pathlib import Path

import numpy as np

from moka_peft.data.generated.encoding import write_picture
from moka_peft.data.generated.scenes import COLOURS, NUMBERS, draw_scene, picture_of
from moka_peft.data.generated.texts import write_json


def write_llava_instruct(root: Path, samples: int, split: str, seed: int, *, turns: str = "multi") -> None:
    """Conversations of one or two turns."""
    rng, rows = np.random.default_rng(seed), []
    for index in range(samples):
        scene, name = draw_scene(rng, index), f"{1000 * seed + index:012d}"
        write_picture(root / "train2017" / f"{name}.jpg", picture_of(scene))
        talk = [("Which colour do the bars have?\n<image>", f"They are {scene.colour}.")]
        if index % 2 == 0:
            talk.append(("How many are there?", f"I count {NUMBERS[scene.bars]}."))
        turns_of_row = [(("human", asked), ("gpt", told)) for asked, told in talk]
        conversation = [{"from": who, "value": text} for pair in turns_of_row for who, text in pair]
        rows.append({"id": name, "image": f"{name}.jpg", "conversations": conversation})
    write_json(root / "llava_instruct_150k.json", rows)


def write_a_okvqa(root: Path, samples: int, split: str, seed: int) -> None:
    """Questions for the colour of bars."""
    rng, rows = np.random.default_rng(seed), []
    for index in range(samples):
        scene, number = draw_scene(rng, index), 1000 * seed + index
        write_picture(root / f"{split}2017" / f"{number:012d}.jpg", picture_of(scene))
        choices = [str(colour) for colour in rng.permutation(list(COLOURS))]
        rows.append(
            {
                "split": split,
                "image_id": number,
                "question_id": f"made-up-{number}",
                "question": "Which colour do the bars have?",
                "choices": choices,
                "correct_choice_idx": choices.index(scene.colour),
                "direct_answers": [scene.colour] * 10,
                "difficult_direct_answer": False,
                "rationales": [f"The bars are {scene.colour}."] * 3,
            }
        )
    write_json(root / f"aokvqa_v1p0_{split}.json", rows)
