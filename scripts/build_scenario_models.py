"""Trains what the three scenarios begin with: a language model on text, and two encoders on naming digits.

    python scripts/build_scenario_models.py --recordings ../shared/data/fsdd
    python scripts/build_scenario_models.py            # without recordings: synthesised speech
    python scripts/build_scenario_models.py --text-steps 20 20 --encoder-steps 20 --out runs/try
    python scripts/build_scenario_models.py --size large       # 33 M parameters instead of 1 M: for a GPU

Nothing here sees two of the three together: the language model reads only text, in which the digits of an image or a
recording are words; each encoder learns to name digits through a linear head, which is then dropped. Handwriting and
speech come from the "align" split of `spoken_digits`. Each part becomes an ordinary folder under --out. The same seed,
machine and library versions write the same weights; on a GPU sums may differ in their last digits.

One file of more than 400 lines, so that it can be read from the text to the weights, and copied.
"""

import argparse
import json
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
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
CHUNK = 500  # strips, or words, that a process makes at a time
CAPTION_SHARE = 0.3
BETWEEN = ("", ",", " and", ", and", ",,")
LONGEST_REST = 8
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
Batch = dict[str, Tensor]


@dataclass(frozen=True)
class Size:
    """How large the models are, and how long they train. Two values of the text model: of orderly texts, then of loose.

    text, encoder: width, layers, heads, inner width. pool: strips, or words, made once: a step on them costs a tenth of
    making new ones. apart: every batch has a random generator of its own, so that several processes can make them.
    """

    text: tuple[int, int, int, int]
    encoder: tuple[int, int, int, int]
    batch_size: int
    pool: int
    text_steps: tuple[int, int]
    text_rates: tuple[float, float]
    encoder_steps: int
    encoder_rate: float
    apart: bool


SIZES = {
    "small": Size((128, 4, 4, 256), (64, 3, 4, 128), 64, 6000, (2200, 700), (2e-3, 1e-3), 1500, 4e-3, False),
    "large": Size((512, 8, 8, 1408), (256, 4, 4, 1024), 256, 24000, (3000, 1200), (1e-3, 5e-4), 1500, 1e-3, True),
}
"""0.7, 0.3 and 0.1 M parameters (text, images, speech); 26, 4 and 3 M."""


@dataclass(frozen=True)
class Plan:
    """What all parts share. workers: processes that make batches, 0 for none beside this one."""

    size: Size
    device: torch.device
    workers: int
    seed: int
    test_size: int


_MAKE: Callable[[int], Batch]  # in a process of `made_ahead`


def made_ahead(make: Callable[[int], Batch], count: int, workers: int) -> Iterator[Batch]:
    """make(0), make(1), ...: made by `workers` processes some time before they are asked for, by this one if 0.

    The processes are forked, so that `make` may be a closure. Arrays come through pipes: shared memory may be small.
    """
    if not workers:
        yield from map(make, range(count))
        return
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # else tokenizers complains about the fork
    with ProcessPoolExecutor(workers, get_context("fork"), _remember, (make,)) as pool:
        waiting = deque(pool.submit(_make_one, index) for index in range(min(count, 4 * workers)))
        for later in range(len(waiting), count + len(waiting)):
            made = waiting.popleft().result()
            if later < count:
                waiting.append(pool.submit(_make_one, later))
            yield {name: torch.from_numpy(values) for name, values in made.items()}


def _remember(make: Callable[[int], Batch]) -> None:
    global _MAKE
    _MAKE = make
    torch.set_num_threads(1)


def _make_one(index: int) -> dict[str, np.ndarray]:
    return {name: values.numpy() for name, values in _MAKE(index).items()}


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


def text_batch(tokenizer: Any, rng: np.random.Generator, size: int, loose: bool) -> Batch:
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


def text_batches(tokenizer: Any, plan: Plan, steps: int, loose: bool) -> Iterator[Batch]:
    """The batches of training, from one random generator, or from one each where the size says so."""
    numbers, size = (plan.seed, 1 + 4 * loose), plan.size.batch_size
    whole = np.random.default_rng(numbers)

    def make(step: int) -> Batch:
        rng = np.random.default_rng((*numbers, step)) if plan.size.apart else whole
        return text_batch(tokenizer, rng, size, loose)

    return made_ahead(make, steps, plan.workers)


def language_model(tokenizer: Any, size: Size) -> LlamaForCausalLM:
    width, layers, heads, inner = size.text
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=width,
            intermediate_size=inner,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            max_position_embeddings=256,
            tie_word_embeddings=True,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
        )
    )


def train_language_model(tokenizer: Any, steps: Sequence[int], plan: Plan) -> LlamaForCausalLM:
    """A LLaMA that answers the questions of the group "known" about text."""
    model: Any = language_model(tokenizer, plan.size).to(plan.device)
    for loose, learning_rate in enumerate(plan.size.text_rates):
        batches = text_batches(tokenizer, plan, steps[loose], bool(loose))

        def loss(batches: Iterator[Batch] = batches) -> Tensor:
            return model(**on_device(next(batches), plan.device)).loss

        fit(model, loss, steps[loose], learning_rate, "text")
    return model.eval()


def on_device(batch: Batch, device: torch.device) -> Batch:
    return {name: values.to(device, non_blocking=True) for name, values in batch.items()}


@torch.no_grad()
def answered(model: LlamaForCausalLM, batch: dict[str, Tensor]) -> float:
    """The share of texts whose whole answer is the likeliest, token by token."""
    labels = batch["labels"][:, 1:]
    right = model(**batch).logits[:, :-1].argmax(-1) == labels
    return (right | (labels == -100)).all(dim=1).float().mean().item()


def vision_parts(own: Size) -> tuple[ViTModel, ViTImageProcessorPil]:
    """A ViT of strips of four digits, 32 x 128 pixels, whose patches are as large as a digit."""
    height, width = PATCH, PATCH * DIGITS_PER_STRIP
    hidden, layers, heads, inner = own.encoder
    config = ViTConfig(
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=inner,
        image_size=(height, width),
        patch_size=PATCH,
    )
    size = {"height": height, "width": width}
    processor = ViTImageProcessorPil(size=size, image_mean=[0.5] * 3, image_std=[0.5] * 3)
    return ViTModel(config, add_pooling_layer=False), processor


def speech_parts(own: Size) -> tuple[WhisperModel, WhisperFeatureExtractor]:
    """A Whisper, of which the encoder is used, for segments of 0.8 s: 20 states of 40 ms."""
    hidden, layers, heads, inner = own.encoder
    config = WhisperConfig(
        d_model=hidden,
        encoder_layers=layers,
        encoder_attention_heads=heads,
        encoder_ffn_dim=inner,
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


def pool_of(make: Callable[[np.random.Generator, int], tuple[Tensor, Tensor]], steps: int, plan: Plan) -> Batch:
    """The media that an encoder trains on, and their digits: {"media", "digits"}."""
    count = min(plan.size.pool, steps * plan.size.batch_size)

    def chunk(index: int) -> Batch:
        media, digits = make(np.random.default_rng((plan.seed, 3, index)), min(CHUNK, count - index * CHUNK))
        return {"media": media, "digits": digits}

    if not plan.size.apart:
        return dict(zip(("media", "digits"), make(np.random.default_rng((plan.seed, 3)), count), strict=True))
    chunks = list(made_ahead(chunk, -(-count // CHUNK), plan.workers))
    return {name: torch.cat([one[name] for one in chunks]) for name in chunks[0]}


def train_encoder(
    encoder: nn.Module, name: Callable[..., Tensor], pool: Batch, steps: int, plan: Plan, label: str
) -> Callable[[Tensor, Tensor], float]:
    """Trains an encoder to name the digits of a pool, through a linear head; returns what measures its share of right
    names."""
    head, own = nn.Linear(plan.size.encoder[0], 10), on_device(pool, plan.device)
    together = nn.ModuleList([encoder, head]).to(plan.device)

    def loss() -> Tensor:
        rows = torch.randint(len(own["media"]), (plan.size.batch_size,)).to(plan.device)
        named = name(encoder, head, own["media"][rows])
        return nn.functional.cross_entropy(named.flatten(0, -2), own["digits"][rows].flatten())

    fit(together, loss, steps, plan.size.encoder_rate, label)
    together.eval()

    @torch.no_grad()
    def measure(media: Tensor, digits: Tensor) -> float:
        named = name(encoder, head, media.to(plan.device)).argmax(-1).cpu()
        return (named == digits).float().mean().item()

    return measure


def fit(model: nn.Module, loss: Callable[[], Tensor], steps: int, learning_rate: float, label: str) -> None:
    """Trains every weight with AdamW under a cosine, saying every 100 steps how far it is; on a GPU in bfloat16."""
    device = next(model.parameters()).device.type
    on_gpu = device == "cuda"
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=learning_rate, betas=(0.9, 0.98), weight_decay=0.05, fused=on_gpu or None
    )
    schedule = get_cosine_schedule_with_warmup(optimizer, min(100, steps // 10), steps)
    model.train()
    started = time.monotonic()
    for step in range(1, steps + 1):
        with torch.autocast(device, torch.bfloat16, enabled=on_gpu and torch.cuda.is_bf16_supported()):
            value = loss()
        value.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if step % 100 == 0 or step == steps:
            seconds = time.monotonic() - started
            print(f"{label} step {step}/{steps}  loss {value.item():.3f}  {seconds:.0f} s", flush=True)


def build_text(out: Path, steps: Sequence[int], plan: Plan) -> dict[str, Any]:
    tokenizer = train_tokenizer(plan.seed)
    model = train_language_model(tokenizer, steps, plan)
    rngs = [np.random.default_rng((plan.seed, 2, k)) for k in range(10)]
    batches = [text_batch(tokenizer, rng, plan.test_size // 10, loose=True) for rng in rngs]
    accuracy = sum(answered(model, on_device(batch, plan.device)) for batch in batches) / len(batches)
    model.save_pretrained(out / "text")
    tokenizer.save_pretrained(out / "text")
    return {"parameters": model.num_parameters(), "steps": list(steps), "accuracy_on_text": accuracy}


def build_vision(out: Path, steps: int, plan: Plan) -> dict[str, Any]:
    encoder, processor = vision_parts(plan.size)
    pool = pool_of(lambda rng, count: strips("align", processor, rng, count), steps, plan)
    measure = train_encoder(encoder, name_strip, pool, steps, plan, "vision")
    accuracy = measure(*strips("test", processor, np.random.default_rng((plan.seed, 4)), plan.test_size))
    encoder.save_pretrained(out / "vision")
    processor.save_pretrained(out / "vision")
    images = sum(map(len, images_of("align").values()))
    return {"parameters": encoder.num_parameters(), "steps": steps, "images": images, "test_accuracy": accuracy}


def build_speech(out: Path, steps: int, plan: Plan, folder: Path | None) -> dict[str, Any]:
    model, extractor = speech_parts(plan.size)
    spoken, test = SpokenWords("align", folder), SpokenWords("test", folder)
    pool = pool_of(lambda rng, count: words(spoken, extractor, rng, count), steps, plan)
    measure = train_encoder(model.get_encoder(), name_word, pool, steps, plan, "speech")
    rng = np.random.default_rng((plan.seed, 4))
    accuracy = measure(*words(test, extractor, rng, plan.test_size, varied=False))
    model.save_pretrained(out / "speech")
    extractor.save_pretrained(out / "speech")
    return {
        "parameters": model.get_encoder().num_parameters(),
        "steps": steps,
        "speech": "synthesised" if folder is None else "recorded",
        "recordings": sum(map(len, spoken.names.values())),
        "test_accuracy": accuracy,
    }


def read_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train a language model on text and two encoders on digits.")
    parser.add_argument("--recordings", type=Path, help="a folder of the Free Spoken Digit Dataset")
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--text-steps", type=int, nargs=2, metavar=("ORDERLY", "LOOSE"))
    parser.add_argument("--encoder-steps", type=int)
    parser.add_argument("--parts", nargs="+", default=["text", "vision", "speech"])
    parser.add_argument("--test-size", type=int, default=1000, help="texts, strips and words each is tested on")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--workers", type=int, help="processes that make batches; none: one per CPU for `large`")
    parser.add_argument("--out", type=Path, default=Path("runs/scenarios/models"))
    options = parser.parse_args(arguments)
    size = SIZES[options.size]
    if options.workers and not size.apart:
        parser.error(f"--workers {options.workers}: batches of `{options.size}` come from one random generator")
    if options.workers is None:
        options.workers = (os.cpu_count() or 1) if size.apart else 0
    if options.text_steps is None:
        options.text_steps = list(size.text_steps)
    if options.encoder_steps is None:
        options.encoder_steps = size.encoder_steps
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    args = read_options(arguments)
    torch.set_num_threads(args.threads)
    plan = Plan(SIZES[args.size], torch.device(args.device), args.workers, args.seed, args.test_size)
    builders: dict[str, Callable[[], dict[str, Any]]] = {
        "text": lambda: build_text(args.out, args.text_steps, plan),
        "vision": lambda: build_vision(args.out, args.encoder_steps, plan),
        "speech": lambda: build_speech(args.out, args.encoder_steps, plan, args.recordings),
    }
    on = torch.cuda.get_device_name(plan.device) if plan.device.type == "cuda" else args.device
    for part in args.parts:
        torch.manual_seed(args.seed)
        started = time.monotonic()
        facts = builders[part]()
        facts |= {"seconds": round(time.monotonic() - started, 1), "torch": torch.__version__, "threads": args.threads}
        facts |= {"size": args.size, "device": on, "seed": args.seed}
        (args.out / part / "training.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
        print(part, json.dumps(facts), flush=True)


if __name__ == "__main__":
    main()
