"""Measures what packing saves: the share of padding on a mix of lengths, and the time of an epoch on a small LLaVA.

    python bench/bench_packing.py        # two minutes on one CPU core

Lengths: text is log-normal (median 120 tokens, sigma 0.9, at least 16), and a sample has 0, 1, 2 or 4 images (20, 60,
15 and 5 %) of 576 tokens each, as LLaVA-1.5's; longer ones than a row of 4,096 are left out. Epochs are timed with
images of 64 tokens, text and rows to match: padded, grouped and packed in turn; decoding and tokenising are not timed.
Attention is sdpa with a block mask, which computes what it masks; FlashAttention does not. Writes
bench/results/packing.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import PeftModel, get_peft_model
from PIL import Image
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration, LlavaProcessor
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from moka_peft import MokaConfig, RoutingSpec
from moka_peft.cli.env import environment
from moka_peft.composite.tiny_avt import CHAT_TEMPLATE, tiny_avt_tokenizer
from moka_peft.data import Collator, Sample
from moka_peft.data.packing import padding_share
from moka_peft.data.row_plan import pack_rows

RESULT = Path(__file__).parent / "results" / "packing.json"
IMAGES, IMAGE_SHARES = (0, 1, 2, 4), (0.2, 0.6, 0.15, 0.05)
TEXT_MEDIAN, TEXT_SIGMA, TEXT_LEAST = 120, 0.9, 16  # tokens
IMAGE_TOKENS, CAPACITY, BATCH = 576, 4096, 8
SMALLER = 9  # the timed samples are shorter by this factor: an image is 64 tokens
SIDE, PATCH = 112, 14  # pixels
TEXT = dict(hidden_size=256, intermediate_size=688, num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=4)
VISION = dict(hidden_size=128, intermediate_size=256, num_hidden_layers=2, num_attention_heads=4)


def draw(samples: int, rng: np.random.Generator, smaller: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Text tokens and images of every sample that fits a row."""
    images = rng.choice(IMAGES, size=samples, p=IMAGE_SHARES)
    text = np.exp(rng.normal(np.log(TEXT_MEDIAN), TEXT_SIGMA, samples)).clip(TEXT_LEAST).astype(int)
    fits = text + images * IMAGE_TOKENS <= CAPACITY
    return text[fits] // smaller, images[fits]


def padding_by_way(lengths: np.ndarray, rng: np.random.Generator) -> dict[str, float]:
    """Share of padding tokens in an epoch, for ways to make batches of it."""
    order = rng.permutation(len(lengths))
    window = 50 * BATCH  # as transformers' group_by_length
    windows = [sorted(order[i : i + window], key=lambda j: -lengths[j]) for i in range(0, len(order), window)]
    shares = {
        f"padded, batches of {BATCH}": padded_share(lengths[order], BATCH),
        f"padded, batches of {BATCH} grouped by length": padded_share(lengths[np.concatenate(windows)], BATCH),
    }
    for samples in (16, 64, 256):
        calls = [lengths[order[i : i + samples]] for i in range(0, len(order), samples)]
        shares[f"packed, {samples} samples at a time"] = packed_share(calls)
    return {**shares, "packed, the whole epoch": packed_share([lengths[order]])}


def padded_share(lengths: np.ndarray, batch: int) -> float:
    widths = [batch_lengths.max() * len(batch_lengths) for batch_lengths in cut(lengths, batch)]
    return 1 - float(lengths.sum() / sum(widths))


def packed_share(calls: Sequence[np.ndarray]) -> float:
    """Rows of a call are as wide as its longest."""
    tokens = 0
    for lengths in calls:
        rows = [int(lengths[row].sum()) for row in pack_rows(lengths.tolist(), CAPACITY)]
        tokens += max(rows) * len(rows)
    return 1 - float(sum(lengths.sum() for lengths in calls) / tokens)


def cut(values: Any, size: int) -> list[Any]:
    return [values[i : i + size] for i in range(0, len(values), size)]


def build() -> tuple[PeftModel, LlavaProcessor]:
    """A LLaVA with MokA; the tokenizer is the embedded default's, of which every word below is one token."""
    torch.manual_seed(0)
    tokenizer = tiny_avt_tokenizer()
    settings = dict(size={"height": SIDE, "width": SIDE}, do_center_crop=False)
    processor = LlavaProcessor(
        CLIPImageProcessorPil(**settings),
        tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT_TEMPLATE,
    )
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(**VISION, image_size=SIDE, patch_size=PATCH),
        text_config=LlamaConfig(**TEXT, vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
    )
    model = LlavaForConditionalGeneration(config)
    spec = RoutingSpec.from_pretrained(config, processor)
    return get_peft_model(model, MokaConfig(r=8, routing=spec)).train(), processor


def sample_of(index: int, text: int, images: int, rng: np.random.Generator) -> Sample:
    """A question of one third of the text, the rest is the answer."""
    pictures = [Image.fromarray(rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)) for _ in range(images)]
    asked = [{"type": "image", "image": picture} for picture in pictures]
    asked.append({"type": "text", "text": " one" * max(text // 3, 1)})
    answer = {"role": "assistant", "content": "yes" + " two" * max(text - text // 3 - 6, 1)}
    return Sample(str(index), [{"role": "user", "content": asked}, answer])


def epoch_seconds(model: PeftModel, batches: list[dict[str, Any]]) -> float:
    """Processor seconds of one epoch of forwards, backwards and AdamW steps, on one thread.

    Of the process, not of the clock: other programs on the machine change the clock's by a factor of four.
    """
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4)
    start = time.process_time()
    for batch in batches:
        optimizer.zero_grad()
        model(**batch, use_cache=False).loss.backward()
        optimizer.step()
    return time.process_time() - start


def timed(samples: int, repeats: int, seed: int) -> dict[str, Any]:
    """Epochs in turn: padded, padded and grouped by length, packed."""
    torch.set_num_threads(1)
    rng = np.random.default_rng(seed)
    model, processor = build()
    drawn = zip(*draw(samples, rng, SMALLER), strict=True)
    data = [sample_of(i, int(text), int(images), rng) for i, (text, images) in enumerate(drawn)]
    capacity, padded = CAPACITY // SMALLER, Collator(processor)
    lengths = padded.count_tokens(data)
    packed = Collator(processor, packing=True, max_length=capacity, model_config=model.config)
    rows = [[data[i] for i in row] for row in pack_rows(lengths, capacity)]
    grouped = sorted(range(len(data)), key=lambda i: -lengths[i])
    batches = {
        "padded": [padded(batch) for batch in cut(data, BATCH)],
        "grouped": [padded([data[i] for i in indices]) for indices in cut(grouped, BATCH)],
        "packed": [{k: v for k, v in packed(row).items() if k != "use_cache"} for row in rows],
    }
    seconds: dict[str, list[float]] = {way: [] for way in batches}
    for its in batches.values():  # a first round warms up
        epoch_seconds(model, its[:2])
    for _ in range(repeats):
        for way, its in batches.items():
            seconds[way].append(round(epoch_seconds(model, its), 2))
    ratios = {
        f"{way} over packed": [round(a / b, 3) for a, b in zip(seconds[way], seconds["packed"], strict=True)]
        for way in ("padded", "grouped")
    }
    pad_id = processor.tokenizer.pad_token_id
    tokens = {way: sum(batch["input_ids"].numel() for batch in its) for way, its in batches.items()}
    return {
        "samples": len(data),
        "tokens_without_padding": sum(lengths),
        "tokens": tokens,
        "steps": {way: len(its) for way, its in batches.items()},
        "mean_padding_share_of_batches": {
            way: round(statistics.mean(padding_share(batch, pad_id) for batch in its), 4)
            for way, its in batches.items()
        },
        "processor_seconds": seconds,
        "ratios": ratios,
        "median_ratios": {name: round(statistics.median(values), 3) for name, values in ratios.items()},
    }


def main() -> None:
    """Measures, prints and records."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--drawn", type=int, default=20_000, help="samples for the shares of padding")
    parser.add_argument("--samples", type=int, default=64, help="samples of a timed epoch")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=RESULT)
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    text, images = draw(options.drawn, rng)
    lengths = text + images * IMAGE_TOKENS
    shares = {way: round(share, 4) for way, share in padding_by_way(lengths, rng).items()}
    for way, share in shares.items():
        print(f"{way:44} {share:6.1%} padding")
    epochs = timed(options.samples, options.repeats, options.seed)
    print(f"epoch: {epochs['processor_seconds']} s, medians {epochs['median_ratios']}")
    record = {
        "environment": environment(),
        "command": " ".join(["python", "bench/bench_packing.py", *sys.argv[1:]]),
        "seed": options.seed,
        "lengths": {
            "samples": len(lengths),
            "mean": round(float(lengths.mean()), 1),
            "quantiles_5_50_95": np.quantile(lengths, [0.05, 0.5, 0.95]).tolist(),
            "longest": int(lengths.max()),
            "row": CAPACITY,
        },
        "padding_share": shares,
        "epoch": epochs,
    }
    options.output.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
