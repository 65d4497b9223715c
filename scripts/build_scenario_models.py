"""Trains what the three scenarios begin with: a language model on text, and two encoders on naming digits.

    python scripts/build_scenario_models.py --recordings ../shared/data/fsdd
    python scripts/build_scenario_models.py            # without recordings: synthesised speech
    python scripts/build_scenario_models.py --text-steps 20 20 --encoder-steps 20 --out runs/try

Nothing here sees two of the three together: the language model reads only text, in which the digits of an image or a
recording are words; each encoder learns to name digits through a linear head, which is then dropped. Handwriting and
speech come from the "align" split of `spoken_digits`. Each part becomes an ordinary folder under --out. The same seed,
machine and library versions write the same weights.
"""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor, nn
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    ViTConfig,
    ViTModel,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperModel,
    get_cosine_schedule_with_warmup,
)
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from moka_peft.data.digit_questions import MEDIA_OF, WORDS, draw_digits, draw_question
from moka_peft.data.digit_strips import CELL_PIXELS, DIGITS_PER_STRIP, draw_strip, images_of
from moka_peft.data.formants import SAMPLE_RATE_HZ
from moka_peft.data.spoken_digits import OPENINGS, caption
from moka_peft.data.spoken_words import WORD_SAMPLES, SpokenWords, say

ROOT = Path(__file__).resolve().parents[1]
BATCH_SIZE = 64
POOL = 6000  # strips, or words, made once: a step on them costs a tenth of making new ones
CAPTION_SHARE = 0.3
BETWEEN = ("", ",", " and", ", and", ",,")
LONGEST_REST = 8
TEXT_LEARNING_RATES = (2e-3, 1e-3)  # of orderly texts, then of loose ones
SCENARIO_SHARES = {"avt": 0.5, "vt": 0.25, "st": 0.25}  # two sequences are harder to read than one
PAD, END, USER, ASSISTANT = "<|pad|>", "<|end|>", "<|user|>", "<|assistant|>"
CHAT_TEMPLATE = """\
{%- for message in messages -%}
  {{- '<|' + message.role + '|>' -}}
  {%- if message.role == 'assistant' -%}
    {%- generation -%}{{ ' ' + message.content + '<|end|>' }}{%- endgeneration -%}
  {%- else -%}{{- message.content + '<|end|>' -}}{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|assistant|>' }}{%- endif -%}
"""
PATCH, HOP_SAMPLES, MEL_BANDS = CELL_PIXELS, 320, 40


def draw_scenario(rng: np.random.Generator) -> str:
    return str(rng.choice(list(SCENARIO_SHARES), p=list(SCENARIO_SHARES.values())))


def text_sample(scenario: str, rng: np.random.Generator, loose: bool = False) -> tuple[str, str]:
    """A request as a scenario's, but with the digits as words where a medium would be, and its answer.

    loose: commas and "and" stand anywhere among the digits, as embeddings of a medium that say nothing may.
    """
    if rng.random() < CAPTION_SHARE:
        shown = draw_digits(scenario, rng)
        medium = tuple(shown)[rng.integers(len(shown))]
        request, answer = caption(medium, shown[medium])
    else:
        question = draw_question(scenario, "known", rng)
        shown, request, answer = question.digits, question.text, question.answer
    media = "".join(f"{OPENINGS[medium]}{_in_words(row, rng, loose)}\n" for medium, row in shown.items())
    return media + request, answer


def _in_words(row: tuple[int, ...], rng: np.random.Generator, loose: bool) -> str:
    if not loose:
        between = BETWEEN[rng.integers(3)]
        return "".join(f" {WORDS[digit]}{between}" for digit in row)
    rest = BETWEEN[rng.integers(1, 3)] * rng.integers(LONGEST_REST + 1)
    return "".join(f" {WORDS[digit]}{BETWEEN[rng.integers(len(BETWEEN))]}" for digit in row) + rest


def train_tokenizer(seed: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer trained on the same texts; it knows no placeholders."""
    rng = np.random.default_rng((seed, 0))
    pairs = [text_sample(draw_scenario(rng), rng) for _ in range(4000)]
    texts = [text for request, answer in pairs for text in (request, f" {answer}")]
    new = [draw_question(name, "new", rng).text for name in MEDIA_OF for _ in range(400)]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = [AddedToken(token, normalized=False, special=True) for token in (PAD, END, "<|system|>", USER, ASSISTANT)]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        [*texts, *new],
        trainers.BpeTrainer(vocab_size=600, special_tokens=special, initial_alphabet=alphabet, show_progress=False),
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=PAD, eos_token=END, chat_template=CHAT_TEMPLATE
    )


def text_batch(tokenizer: Any, rng: np.random.Generator, size: int, loose: bool) -> dict[str, Tensor]:
    """Texts of `size` conversations of one scenario, padded on the right; only answers carry loss."""
    scenario = draw_scenario(rng)
    pairs = [text_sample(scenario, rng, loose) for _ in range(size)]
    prompts = [f"{USER}{request}{END}{ASSISTANT}" for request, _ in pairs]
    batch = tokenizer([f"{prompt} {answer}{END}" for prompt, (_, answer) in zip(prompts, pairs, strict=True)],
                      padding=True, return_tensors="pt")  # fmt: skip
    lengths = torch.tensor([len(ids) for ids in tokenizer(prompts).input_ids])
    places = torch.arange(batch.input_ids.shape[1])
    in_answer = (places >= lengths[:, None]) & batch.attention_mask.bool()
    return {
        "input_ids": batch.input_ids,
        "attention_mask": batch.attention_mask,
        "labels": batch.input_ids.masked_fill(~in_answer, -100),
    }


def train_language_model(tokenizer: Any, steps: Sequence[int], seed: int) -> LlamaForCausalLM:
    """A LLaMA of 0.7 M parameters that answers the questions of the group "known" about text."""
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=128,
            intermediate_size=256,
            num_hidden_layers=4,
            num_attention_heads=4,
            max_position_embeddings=256,
            tie_word_embeddings=True,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
        )
    )
    for loose, learning_rate in enumerate(TEXT_LEARNING_RATES):
        rng = np.random.default_rng((seed, 1 + 4 * loose))

        def loss(rng: np.random.Generator = rng, loose: bool = bool(loose)) -> Tensor:
            return model(**text_batch(tokenizer, rng, BATCH_SIZE, loose)).loss

        fit(model, loss, steps[loose], learning_rate, "text")
    return model.eval()


@torch.no_grad()
def answered(model: LlamaForCausalLM, batch: dict[str, Tensor]) -> float:
    """The share of texts whose whole answer is the likeliest, token by token."""
    labels = batch["labels"][:, 1:]
    right = model(**batch).logits[:, :-1].argmax(-1) == labels
    return (right | (labels == -100)).all(dim=1).float().mean().item()


def vision_parts() -> tuple[ViTModel, ViTImageProcessorPil]:
    """A ViT of strips of four digits, 32 x 128 pixels, whose patches are as large as a digit."""
    height, width = PATCH, PATCH * DIGITS_PER_STRIP
    config = ViTConfig(
        hidden_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=128,
        image_size=(height, width),
        patch_size=PATCH,
    )
    size = {"height": height, "width": width}
    processor = ViTImageProcessorPil(size=size, image_mean=[0.5] * 3, image_std=[0.5] * 3)
    return ViTModel(config, add_pooling_layer=False), processor


def speech_parts() -> tuple[WhisperModel, WhisperFeatureExtractor]:
    """A Whisper, of which the encoder is used, for segments of 0.8 s: 20 states of 40 ms."""
    config = WhisperConfig(
        d_model=64,
        encoder_layers=3,
        encoder_attention_heads=4,
        encoder_ffn_dim=128,
        num_mel_bins=MEL_BANDS,
        max_source_positions=WORD_SAMPLES // HOP_SAMPLES // 2,
        dropout=0.1,
        decoder_layers=0,
        vocab_size=1,
        pad_token_id=0,
        bos_token_id=0,
        eos_token_id=0,
        decoder_start_token_id=0,
    )
    extractor = WhisperFeatureExtractor(
        feature_size=MEL_BANDS, sampling_rate=SAMPLE_RATE_HZ, hop_length=HOP_SAMPLES, chunk_length=1, n_fft=512
    )
    return WhisperModel(config), extractor


def strips(split: str, processor: Any, rng: np.random.Generator, size: int) -> tuple[Tensor, Tensor]:
    """Pixels of strips of random digits [size, 3, 32, 128], and the digits [size, 4]."""
    labels, pool = rng.integers(10, size=(size, DIGITS_PER_STRIP)), images_of(split)
    images = [draw_strip(np.array([rng.choice(pool[digit]) for digit in row]), rng) for row in labels]
    pixels = processor([image.convert("RGB") for image in images], return_tensors="pt")["pixel_values"]
    return pixels, torch.from_numpy(labels)


def name_strip(encoder: ViTModel, head: nn.Module, pixels: Tensor) -> Tensor:
    """Scores of every digit [N, 4, 10], from the state of its patch."""
    return head(encoder(pixel_values=pixels).last_hidden_state[:, 1:])


def words(spoken: SpokenWords, extractor: Any, rng: np.random.Generator, size: int, varied: bool = True):
    """Features of spoken digits [size, 40, 40], and the digits [size]; `varied` changes pace and pitch a little."""
    labels = rng.integers(10, size=size)
    clips = [say(spoken, (str(rng.choice(spoken.names[digit])),), rng) for digit in labels]
    if varied:
        clips = [_faster(clip, rng.uniform(0.85, 1.15)) for clip in clips]
    features = extractor(clips, sampling_rate=SAMPLE_RATE_HZ, padding="max_length", max_length=WORD_SAMPLES,
                         return_tensors="pt")["input_features"]  # fmt: skip
    return features, torch.from_numpy(labels)


def _faster(clip: np.ndarray, pace: float) -> np.ndarray:
    places = (np.arange(len(clip)) - len(clip) / 2) * pace + len(clip) / 2
    return np.interp(places, np.arange(len(clip)), clip, left=0, right=0).astype(np.float32)


def name_word(encoder: Any, head: nn.Module, features: Tensor) -> Tensor:
    """Scores of the spoken digit [N, 10], from the mean of the encoder's states."""
    return head(encoder(features).last_hidden_state.mean(dim=1))


def train_encoder(
    encoder: nn.Module, name: Callable[..., Tensor], pool: tuple[Tensor, Tensor], steps: int, label: str
) -> Callable[[Tensor, Tensor], float]:
    """Trains an encoder to name the digits of a pool, through a linear head; returns what measures its share of right
    names."""
    head, (media, labels) = nn.Linear(64, 10), pool

    def loss() -> Tensor:
        rows = torch.randint(len(media), (BATCH_SIZE,))
        return nn.functional.cross_entropy(name(encoder, head, media[rows]).flatten(0, -2), labels[rows].flatten())

    together = nn.ModuleList([encoder, head])
    fit(together, loss, steps, 4e-3, label)
    together.eval()

    @torch.no_grad()
    def measure(media: Tensor, labels: Tensor) -> float:
        return (name(encoder, head, media).argmax(-1) == labels).float().mean().item()

    return measure


def fit(model: nn.Module, loss: Callable[[], Tensor], steps: int, learning_rate: float, label: str) -> None:
    """Trains every weight with AdamW under a cosine, saying every 100 steps how far it is."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, betas=(0.9, 0.98), weight_decay=0.05)
    schedule = get_cosine_schedule_with_warmup(optimizer, min(100, steps // 10), steps)
    model.train()
    started = time.monotonic()
    for step in range(1, steps + 1):
        value = loss()
        value.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if step % 100 == 0 or step == steps:
            seconds = time.monotonic() - started
            print(f"{label} step {step}/{steps}  loss {value.item():.3f}  {seconds:.0f} s", flush=True)


def build_text(out: Path, steps: Sequence[int], seed: int, test_size: int) -> dict[str, Any]:
    tokenizer = train_tokenizer(seed)
    model = train_language_model(tokenizer, steps, seed)
    batches = [
        text_batch(tokenizer, np.random.default_rng((seed, 2, k)), test_size // 10, loose=True) for k in range(10)
    ]
    accuracy = sum(answered(model, batch) for batch in batches) / len(batches)
    model.save_pretrained(out / "text")
    tokenizer.save_pretrained(out / "text")
    return {"parameters": model.num_parameters(), "steps": steps, "accuracy_on_text": accuracy}


def build_vision(out: Path, steps: int, seed: int, test_size: int) -> dict[str, Any]:
    encoder, processor = vision_parts()
    pool = strips("align", processor, np.random.default_rng((seed, 3)), min(POOL, steps * BATCH_SIZE))
    measure = train_encoder(encoder, name_strip, pool, steps, "vision")
    accuracy = measure(*strips("test", processor, np.random.default_rng((seed, 4)), test_size))
    encoder.save_pretrained(out / "vision")
    processor.save_pretrained(out / "vision")
    images = sum(map(len, images_of("align").values()))
    return {"parameters": encoder.num_parameters(), "steps": steps, "images": images, "test_accuracy": accuracy}


def build_speech(out: Path, steps: int, seed: int, test_size: int, folder: Path | None) -> dict[str, Any]:
    model, extractor = speech_parts()
    spoken, test = SpokenWords("align", folder), SpokenWords("test", folder)
    pool = words(spoken, extractor, np.random.default_rng((seed, 3)), min(POOL, steps * BATCH_SIZE))
    measure = train_encoder(model.get_encoder(), name_word, pool, steps, "speech")
    accuracy = measure(*words(test, extractor, np.random.default_rng((seed, 4)), test_size, varied=False))
    model.save_pretrained(out / "speech")
    extractor.save_pretrained(out / "speech")
    return {
        "parameters": model.get_encoder().num_parameters(),
        "steps": steps,
        "speech": "synthesised" if folder is None else "recorded",
        "recordings": sum(map(len, spoken.names.values())),
        "test_accuracy": accuracy,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Train a language model on text and two encoders on digits.")
    parser.add_argument("--recordings", type=Path, help="a folder of the Free Spoken Digit Dataset")
    parser.add_argument("--text-steps", type=int, nargs=2, default=[2200, 700], metavar=("ORDERLY", "LOOSE"))
    parser.add_argument("--encoder-steps", type=int, default=1500)
    parser.add_argument("--parts", nargs="+", default=["text", "vision", "speech"])
    parser.add_argument("--test-size", type=int, default=1000, help="texts, strips and words each is tested on")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("runs/scenarios/models"))
    args = parser.parse_args(arguments)
    torch.set_num_threads(args.threads)
    builders: dict[str, Callable[[], dict[str, Any]]] = {
        "text": lambda: build_text(args.out, args.text_steps, args.seed, args.test_size),
        "vision": lambda: build_vision(args.out, args.encoder_steps, args.seed, args.test_size),
        "speech": lambda: build_speech(args.out, args.encoder_steps, args.seed, args.test_size, args.recordings),
    }
    for part in args.parts:
        torch.manual_seed(args.seed)
        started = time.monotonic()
        facts = builders[part]()
        facts |= {"seconds": round(time.monotonic() - started, 1), "torch": torch.__version__, "threads": args.threads}
        (args.out / part / "training.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
        print(part, json.dumps(facts), flush=True)


if __name__ == "__main__":
    main()
