"""Trains and generates once in the shapes of Qwen2.5-VL-7B and LLaMA-3-8B, and records peak memory and seconds.

    python bench/full_shapes.py                      # one GPU of 80 GB; nothing is downloaded
    python bench/full_shapes.py --device cpu --tiny --out runs/full_shapes_tiny.json

Random bf16 weights. Per model: the frozen base's forward, then steps of PEFT's LoRA and of MokA under gradient
checkpointing, on one chat and on several packed into a row (tokens per second), one `generate` against a forward on
the whole, and both adapters again on an nf4 base where bitsandbytes is installed. Writes
bench/results/full_shapes.json after every part. Exit status 1 where a part failed, a loss or gradient is not finite,
or a gradient is zero that has no reason to be.
"""

from __future__ import annotations

import argparse
import json
import sys
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from cached_generation import compare_cached
from chats import TINY_LENGTHS, ChatWriter, Lengths
from meter import Meter
from nf4 import is_available as nf4_is_available
from nf4 import quantize
from peft import LoraConfig, PeftModel, get_peft_model
from shapes import SHAPES, Shape
from training_steps import problems, run_adapter, run_base
from transformers import PreTrainedModel

from moka_peft import MokaConfig, media_with_keys
from moka_peft.cli.env import environment
from moka_peft.data.packing import FAMILIES as PACKED_FAMILIES
from moka_peft.training.activations import enable_checkpointing
from moka_peft.training.determinism import seed_all

ROOT = Path(__file__).resolve().parents[1]
DECODER_LINEARS = r"(?!.*visual\.).*\.(q|k|v|o|gate|up|down)_proj"  # what MokA adapts by default


def adapt(model: PreTrainedModel, method: str, shape: Shape, options: argparse.Namespace) -> PeftModel:
    """`model` with an adapter of the same rank on the same Linears, whichever the method."""
    sizes = {"r": options.rank, "lora_alpha": 2 * options.rank}
    if method == "lora":
        return get_peft_model(model, LoraConfig(target_modules=DECODER_LINEARS, **sizes))
    spec = shape.spec
    return get_peft_model(model, MokaConfig(routing=spec, modalities=spec.modalities, impl=options.impl, **sizes))


def measure(shape: Shape, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Every part of one model, as it is done."""
    seed_all(options.seed)
    lengths = TINY_LENGTHS if options.tiny else Lengths()
    chats = ChatWriter(shape, lengths, torch.Generator().manual_seed(options.seed), options.device)
    batch, prompts = chats.training_batch(), chats.prompts()
    meter = Meter(options.device)
    model = meter.run(lambda: shape.build(tiny=options.tiny, device=options.device))
    yield {"part": "build", "parameters": model.num_parameters(), **meter.facts()}
    enable_checkpointing(model)
    tokens = {"tokens": batch["input_ids"].numel(), "tokens_with_loss": int((batch["labels"] != -100).sum())}
    yield {"part": "forward", "method": "base", **tokens, **run_base(model, batch, options.steps, options.device)}
    for method in ("lora", "moka"):
        adapted = adapt(model, method, shape, options)
        yield {"part": "train", "method": method, "base_weights": "bf16", **train(adapted, batch, options)}
        if model.config.model_type in PACKED_FAMILIES:
            yield {"part": "train packed", "method": method, **train_packed(adapted, chats, options)}
        if method == "moka":
            yield {"part": "generate", "method": method, **compare_cached(adapted, shape, prompts, options.device)}
        model = adapted.unload()
    yield from measure_nf4(model, shape, batch, options)


def measure_nf4(
    model: PreTrainedModel, shape: Shape, batch: dict[str, torch.Tensor], options: argparse.Namespace
) -> Iterator[dict[str, Any]]:
    """The same steps on a 4-bit base; `model` is quantized in place."""
    if not nf4_is_available():
        yield {"part": "train", "base_weights": "nf4", "not_measured": "bitsandbytes is not installed"}
        return
    meter = Meter(options.device)
    meter.run(lambda: quantize(model))
    yield {"part": "quantize", "base_weights": "nf4", **meter.facts()}
    for method in ("lora", "moka"):
        adapted = adapt(model, method, shape, options)
        yield {"part": "train", "method": method, "base_weights": "nf4", **train(adapted, batch, options)}
        model = adapted.unload()


def train(model: PeftModel, batch: dict[str, torch.Tensor], options: argparse.Namespace) -> dict[str, Any]:
    """The steps of one adapter; of MokA also the implementation and the share of media that had keys."""
    run = run_adapter(model, batch, options.steps, options.device)
    if isinstance(model.active_peft_config, MokaConfig):
        run |= {"impl": options.impl, "media_with_keys": media_with_keys(model)["default"]}
    return {"rank": options.rank, **run}


def train_packed(model: PeftModel, chats: ChatWriter, options: argparse.Namespace) -> dict[str, Any]:
    """The same steps on chats that share one row."""
    batch = chats.packed_batch(model.config)
    run = train(model, batch, options)
    tokens = batch["input_ids"].numel()
    rate = round(tokens / run["seconds"][1], 1)
    return {"base_weights": "bf16, packed", "tokens": tokens, "tokens_per_second": rate, **run}


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--tiny", action="store_true", help="small models and short chats, the same code")
    parser.add_argument("--models", nargs="+", choices=list(SHAPES), default=list(SHAPES))
    parser.add_argument("--steps", type=int, default=2, help="training steps; the second is the one reported")
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--impl", default="auto", help="of MokA's delta")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=ROOT / "bench" / "results" / "full_shapes.json")
    options = parser.parse_args(arguments)
    if options.steps < 2:
        parser.error(f"--steps: expected at least 2, got {options.steps}. The first step warms up, and its B is zero.")
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device: torch finds no CUDA device. Take --device cpu --tiny.")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit status."""
    options = parse(arguments)
    command = ["python", "bench/full_shapes.py", *(sys.argv[1:] if arguments is None else arguments)]
    result = {
        "environment": environment(),
        "command": " ".join(command),
        "seed": options.seed,
        "summary": {},
        "runs": [],
    }
    wrong: list[str] = []
    for name in options.models:
        try:
            for run in measure(SHAPES[name], options):
                record(result, {"model": name, "tiny": options.tiny, **run}, options.out)
                wrong += [f"{name} {run.get('method')}: {problem}" for problem in problems(run)]
        except Exception as error:  # the next model is still worth its time on a lent GPU
            traceback.print_exc()
            record(result, {"model": name, "tiny": options.tiny, "error": repr(error)}, options.out)
            wrong.append(f"{name}: {error!r}")
        if options.device == "cuda":
            torch.cuda.empty_cache()
    print(*wrong, sep="\n", file=sys.stderr)
    return int(bool(wrong))


def summarise(runs: Sequence[dict[str, Any]]) -> dict[str, dict[str, dict[str, Any]]]:
    """Per model, then method and weights of the base: peak memory and the seconds of the second step."""
    summary: dict[str, dict[str, dict[str, Any]]] = {}
    for run in runs:
        if "second_step_seconds" in run:
            key = f"{run['method']} {run.get('base_weights', 'bf16')}"
            numbers = {name: run[name] for name in ("peak_gib", "second_step_seconds")}
            summary.setdefault(run["model"], {})[key] = numbers
    return summary


def record(result: dict[str, Any], run: dict[str, Any], out: Path) -> None:
    """Adds `run`, writes the file and shows the run."""
    result["runs"].append(run)
    result["summary"] = summarise(result["runs"])
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(run), flush=True)


if __name__ == "__main__":
    sys.exit(main())
