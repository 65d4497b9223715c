"""Trains tiny-avt, the embedded default, from scratch and writes it into the package.

    python scripts/build_tiny_avt.py                              # 24 minutes on 2 cores that others used too
    python scripts/build_tiny_avt.py --steps 20 --out runs/tiny   # a try

All parts (encoders, projectors, language model) learn together, on the "align" split of av_digits and on unimodal
tasks only: questions of the groups Audio and Visual, and transcriptions of one medium. Questions about both media
are left to the adapter. The same seed, machine and library versions write the same bytes.
"""

import argparse
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset
from transformers import get_cosine_schedule_with_warmup

from moka_peft.composite import CompositeForConditionalGeneration, tiny_avt_config, tiny_avt_processor
from moka_peft.composite.tiny_avt import FOLDER
from moka_peft.data import AvDigits, Collator, Sample
from moka_peft.data.av_questions import GROUPS
from moka_peft.data.notes import MAX_NOTES, TIMBRES
from moka_peft.training.answers import generate_answers
from moka_peft.training.metrics import score_answers

BATCH_SIZE = 64
SCENES = 3200
LEARNING_RATE = 2e-3
TRANSCRIPTION_SHARE = 0.15
MEDIUM_OF = {"Visual": "image", "Audio": "audio"}
TRANSCRIPTION_OF = {"Visual": "Which digits are written?", "Audio": "Which notes are heard?"}


class AlignSamples(Dataset[Sample]):
    """Unimodal samples, some of them transcriptions. A batch has both media, or one and questions about it."""

    def __init__(self, size: int, seed: int):
        self.questions = {group: AvDigits("align", size, seed, groups=(group,)) for group in MEDIUM_OF}
        self.size, self.seed = size, seed

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> Sample:
        batch, rng = divmod(index, BATCH_SIZE)[0], np.random.default_rng((self.seed, 1, index))
        groups = tuple(MEDIUM_OF)
        alone = batch % 3 < len(groups)
        group = groups[batch % 3] if alone else groups[rng.integers(len(groups))]
        sample = self.questions[group][index]
        user, assistant = sample.messages
        *media, question = user["content"]
        if alone:
            media = [part for part in media if part["type"] == MEDIUM_OF[group]]
        if rng.random() < TRANSCRIPTION_SHARE:
            scene = self.questions[group].facts(index).scene
            seen_or_heard = scene.digits if group == "Visual" else scene.notes
            question = {"type": "text", "text": TRANSCRIPTION_OF[group]}
            assistant = {"role": "assistant", "content": " ".join(map(str, seen_or_heard))}
        return replace(sample, messages=[{"role": "user", "content": [*media, question]}, assistant])


def scene_labels(scenes: AvDigits, medium: str) -> torch.Tensor:
    """What each scene shows, or plays, place by place: [samples, places]; a place without a note has its own label."""
    rows = [scenes.facts(index).scene for index in range(len(scenes))]
    if medium == "image":
        return torch.tensor([scene.digits for scene in rows])
    notes = [[TIMBRES.index(timbre) for timbre in scene.notes] for scene in rows]
    return torch.tensor([row + [len(TIMBRES)] * (MAX_NOTES - len(row)) for row in notes])


def teach_encoder(
    model: CompositeForConditionalGeneration, collator: Collator, medium: str, steps: int, seed: int
) -> None:
    """Trains one encoder with its projector to name every place, through a linear head that is then dropped.

    A step costs a twentieth of one of the whole model, so most of the seeing and hearing is learned here.
    """
    scenes = AvDigits("align", SCENES, seed)
    labels = scene_labels(scenes, medium)
    name = {"image": "pixel_values", "audio": "input_features"}[medium]
    inputs = torch.cat([collator.collate_prompts(scenes[i : i + 64])[name] for i in range(0, SCENES, 64)])
    classes = int(labels.max()) + 1
    head = torch.nn.Linear(model.embed_media(medium, inputs[:1]).numel(), labels.shape[1] * classes)
    part = {"image": "vision", "audio": "audio"}[medium]
    parameters = [p for name, p in model.named_parameters() if name.startswith(part)] + list(head.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=LEARNING_RATE, weight_decay=0.05)
    schedule = get_cosine_schedule_with_warmup(optimizer, steps // 10, steps)
    for step in range(1, steps + 1):
        rows = torch.randint(SCENES, (BATCH_SIZE,))
        scores = head(model.embed_media(medium, inputs[rows]).flatten(1)).view(-1, classes)
        loss = torch.nn.functional.cross_entropy(scores, labels[rows].flatten())
        take_step(loss, parameters, optimizer, schedule)
        if step % 100 == 0:
            right = (scores.argmax(-1) == labels[rows].flatten()).float().mean()
            print(f"{medium} step {step}/{steps}  loss {loss.item():.3f}  right {100 * right:.0f} %", flush=True)


def take_step(loss: torch.Tensor, parameters: list, optimizer: Any, schedule: Any) -> None:
    loss.backward()
    torch.nn.utils.clip_grad_norm_(parameters, 1.0)
    optimizer.step()
    schedule.step()
    optimizer.zero_grad()


def train(model: CompositeForConditionalGeneration, collator: Collator, steps: int, seed: int) -> None:
    """Trains every parameter with AdamW; batches are made in a second process, in a fixed order."""
    loader = DataLoader(
        AlignSamples(steps * BATCH_SIZE, seed), BATCH_SIZE, collate_fn=collator, num_workers=1, prefetch_factor=4
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.98), weight_decay=0.01)
    schedule = get_cosine_schedule_with_warmup(optimizer, min(200, steps // 10), steps)
    model.train()
    started = time.monotonic()
    for step, batch in enumerate(loader, start=1):
        loss = model(**batch).loss
        take_step(loss, list(model.parameters()), optimizer, schedule)
        if step % 100 == 0 or step == steps:
            print(f"step {step}/{steps}  loss {loss.item():.3f}  {time.monotonic() - started:.0f} s", flush=True)


def accuracies(model: CompositeForConditionalGeneration, collator: Collator, size: int = 600) -> dict[str, float]:
    """Per cent of right answers on the test split, per group and, as "group/kind", per kind of question."""
    samples = AvDigits("test", size)[:]
    answers = generate_answers(
        model, collator.processor, collator.collate_prompts, samples, batch_size=100, max_new_tokens=6
    )
    by_kind = [replace(sample, group=f"{sample.group}/{sample.kind}") for sample in samples]
    scores = score_answers(samples, answers) | score_answers(by_kind, answers)
    return {name: 100 * score["accuracy"] for name, score in sorted(scores.items())}


README = """# tiny-avt

An audio-visual-text composite of {parameters:,} parameters: a 4-layer LLaMA of width 128 with a 2-layer ViT and a
2-layer Whisper encoder of width 64. Small enough to be adapted in minutes on two CPU cores.

Made by `{command}` with torch {torch_version} on {threads} CPU threads.
Trained from scratch on the "align" split of `av_digits`: the encoders on naming what each place shows or plays, then
all parts on unimodal questions and transcriptions. Handwritten digits: scikit-learn's `load_digits`; notes:
synthesised. The other splits share no digit image with it.

Exact answers on the "test" split, whose digits were never seen, in per cent:

{table}

It never saw a question about both media; that is what an adapter teaches it.
"""


def write(model: CompositeForConditionalGeneration, collator: Collator, folder: Path, facts: dict) -> None:
    """Writes weights, config, tokenizer, processor and README into the folder."""
    scores = accuracies(model, collator)
    rows = [f"| {name} | {score:.1f} |" for name, score in scores.items() if name in GROUPS]
    model.save_pretrained(folder)
    collator.processor.save_pretrained(folder)
    table = "\n".join(["| group | accuracy |", "|---|---|", *rows])
    (folder / "README.md").write_text(README.format(table=table, **facts), encoding="utf-8")
    for name, score in scores.items():
        print(f"{name:40} {score:5.1f} %")


def main() -> None:
    parser = argparse.ArgumentParser(description="Train tiny-avt from scratch and write it into the package.")
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--image-steps", type=int, default=500)
    parser.add_argument("--audio-steps", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=FOLDER)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    torch.set_num_threads(args.threads)
    model = CompositeForConditionalGeneration(tiny_avt_config())
    collator = Collator(tiny_avt_processor())
    for medium, steps in (("image", args.image_steps), ("audio", args.audio_steps)):
        teach_encoder(model, collator, medium, steps, args.seed)
    train(model, collator, args.steps, args.seed)
    facts = {
        "command": "scripts/build_tiny_avt.py",
        "threads": args.threads,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "torch_version": torch.__version__.split("+")[0],
    }
    write(model, collator, args.out, facts)


if __name__ == "__main__":
    main()
