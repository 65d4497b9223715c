"""Trains tiny-avt, the embedded default, from scratch and writes it into the package.

    python scripts/build_tiny_avt.py                              # 2 cores, see the README it writes for the time
    python scripts/build_tiny_avt.py --steps 20 --out runs/tiny   # a try

All parts (encoders, projectors, language model) learn together, on the "align" split of av_digits and on unimodal
tasks only: questions of the groups Audio and Visual, and transcriptions of one medium. Questions about both media
are left to the adapter. The same seed, machine and library versions write the same bytes.
"""

import argparse
import time
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset
from transformers import get_cosine_schedule_with_warmup

from moka_peft.composite import CompositeForConditionalGeneration, tiny_avt_config, tiny_avt_processor
from moka_peft.composite.tiny_avt import FOLDER
from moka_peft.data import AvDigits, Collator, Sample
from moka_peft.data.av_questions import GROUPS

BATCH_SIZE = 64
LEARNING_RATE = 2e-3
TRANSCRIPTION_SHARE = 0.4
SINGLE_MEDIUM_SHARE = 0.3
MEDIUM_OF = {"Visual": "image", "Audio": "audio"}
TRANSCRIPTION_OF = {"Visual": "Which digits are written?", "Audio": "Which notes are heard?"}


class AlignSamples(Dataset[Sample]):
    """Unimodal samples: some ask for a transcription instead, some come without the medium that is not asked for."""

    def __init__(self, size: int, seed: int):
        self.questions = AvDigits("align", size, seed, groups=tuple(MEDIUM_OF))
        self.seed = seed

    def __len__(self) -> int:
        return len(self.questions)

    def __getitem__(self, index: int) -> Sample:
        rng = np.random.default_rng((self.seed, 1, index))
        sample = self.questions[index]
        user, assistant = sample.messages
        *media, question = user["content"]
        if rng.random() < TRANSCRIPTION_SHARE:
            scene = self.questions.facts(index).scene
            seen_or_heard = scene.digits if sample.group == "Visual" else scene.notes
            question = {"type": "text", "text": TRANSCRIPTION_OF[sample.group]}
            assistant = {"role": "assistant", "content": " ".join(map(str, seen_or_heard))}
        if rng.random() < SINGLE_MEDIUM_SHARE:
            media = [part for part in media if part["type"] == MEDIUM_OF[sample.group]]
        return replace(sample, messages=[{"role": "user", "content": [*media, question]}, assistant])


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
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if step % 100 == 0 or step == steps:
            print(f"step {step}/{steps}  loss {loss.item():.3f}  {time.monotonic() - started:.0f} s", flush=True)


@torch.no_grad()
def accuracies(model: CompositeForConditionalGeneration, collator: Collator, size: int = 600) -> dict[str, float]:
    """Per cent of exact answers on the test split, per group and, after a slash, per kind."""
    model.eval()
    samples, right = AvDigits("test", size), defaultdict(list)
    for start in range(0, size, 100):
        chunk = samples[start : start + 100]
        prompts = collator.collate_prompts(chunk)
        tokens = model.generate(**prompts, max_new_tokens=6, do_sample=False)[:, prompts["input_ids"].shape[1] :]
        texts = collator.processor.tokenizer.batch_decode(tokens, skip_special_tokens=True)
        for sample, text in zip(chunk, texts, strict=True):
            for name in (str(sample.group), f"{sample.group}/{sample.kind}"):
                right[name].append(text.strip() == sample.answer)
    return {name: 100 * float(np.mean(hits)) for name, hits in sorted(right.items())}


README = """# tiny-avt

An audio-visual-text composite of {parameters:,} parameters: a 4-layer LLaMA of width 128 with a 2-layer ViT and a
2-layer Whisper encoder of width 64. Small enough to be adapted in minutes on two CPU cores.

Made by `scripts/build_tiny_avt.py --steps {steps} --seed {seed}` in {minutes:.0f} minutes on {threads} threads
(torch {torch_version}): trained from scratch on the "align" split of `av_digits`, unimodal questions and
transcriptions only. Handwritten digits: scikit-learn's `load_digits`; notes: synthesised.

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
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=FOLDER)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    torch.set_num_threads(args.threads)
    model = CompositeForConditionalGeneration(tiny_avt_config())
    collator = Collator(tiny_avt_processor())
    started = time.monotonic()
    train(model, collator, args.steps, args.seed)
    facts = {
        "steps": args.steps,
        "seed": args.seed,
        "threads": args.threads,
        "minutes": (time.monotonic() - started) / 60,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "torch_version": torch.__version__.split("+")[0],
    }
    write(model, collator, args.out, facts)


if __name__ == "__main__":
    main()
