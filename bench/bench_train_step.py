"""Times whole training steps of a small Qwen2.5-VL-shaped model, or of the 7B shape on a GPU, with each adapter on it.

    python bench/bench_train_step.py                                  # ten minutes on two cores
    python bench/bench_train_step.py --full --device cuda             # one GPU of 80 GB; nothing is downloaded
    python bench/bench_train_step.py --full --tiny --device cpu --rounds 2 --out runs/train_step_tiny.json

Forward, loss, backward, AdamW on the adapter, zero_grad; all Linears of the decoder. One interleaved run with and one
without gradient checkpointing: the frozen base twice (it computes its input's gradient alone), then every adapter at
every rank and dropout, all on the same weights. The routing is read from `input_ids` in every step, as in training.
The small model has a vocabulary of 2,048 tokens: a real head, which no adapter changes, would take most of the step.
`--full`: Qwen2.5-VL-7B's shape in bfloat16, one row of 4,096 tokens under checkpointing, rank 16; also peak memory of
each alone, tokens per second, and the share of the measured matmul peak. The vision tower takes no part.
Writes bench/results/train_step.json, with `--full` bench/results/train_step_full.json.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Sequence
from typing import Any

import torch
from matmul_peak import flops_per_token, matmul_peak
from meter import Meter
from providers import BASES, LOOP, Variant, step_providers
from recording import RESULTS, header, options_of, say, table, timing, write
from shapes import SHAPES

from moka_peft.analysis.speed import ChatLayout, ChatTokens, compare, kept_bytes, measure, sharing_copy, training_step
from moka_peft.analysis.speed import small_qwen2_5_vl as small_model
from moka_peft.analysis.speed.comparison import provider_facts, rounded
from moka_peft.training.activations import enable_checkpointing
from moka_peft.training.determinism import fixed_threads

FULL = "qwen2.5-vl-7b"


def build(options: argparse.Namespace) -> Any:
    """The frozen base."""
    if not options.full:
        return small_model(width=options.width, layers=options.layers, device=options.device, seed=options.seed)
    torch.manual_seed(options.seed)
    return SHAPES[FULL].build(tiny=options.tiny, device=options.device)


def variants_of(options: argparse.Namespace) -> list[Variant]:
    sizes = itertools.product(options.ranks, options.dropouts)
    found = [Variant(method, rank, dropout) for rank, dropout in sizes for method in options.methods]
    if options.full:  # PEFT keeps an adapter on a bfloat16 base in float32 unless told
        found += [Variant(v.method, v.rank, v.dropout, upcast=False) for v in found if v.method in ("lora", "moka")]
    return found


def measure_steps(model: Any, checkpointing: bool, options: argparse.Namespace) -> dict[str, Any]:
    """One interleaved run, and MokA over each other adapter of its rank and dropout."""
    chats = ChatTokens.of(model.config)
    layout = ChatLayout(batch=options.batch, length=options.tokens // options.batch, turns=options.turns)
    inputs = chats.write(layout, options.seed, options.device)
    model = sharing_copy(model)  # the next run may be without
    if checkpointing:
        enable_checkpointing(model)
    variants = variants_of(options)
    alone = memory(model, variants, chats.spec, inputs, options)
    steps = step_providers(model, variants, chats.spec, inputs)
    run = measure(steps, **timing(options))
    providers = provider_facts(run.seconds)
    for facts in providers.values():
        facts["tokens_per_second"] = rounded(layout.tokens / facts["seconds"])
    return {
        "checkpointing": checkpointing,
        "tokens": layout.tokens,
        "batch": layout.batch,
        "instruction_tokens_per_turn": layout.parts(layout.turn_lengths()[0])[1],
        "run": run.facts(),
        "providers": providers,
        "memory": alone,
        "ratios": ratios(run.seconds, variants),
    }


def ratios(seconds: dict[str, list[float]], variants: Sequence[Variant]) -> list[dict[str, Any]]:
    """MokA over every other adapter of the same rank, dropout and dtype."""
    found = []
    for ours, theirs in itertools.product(variants, variants):
        same = (ours.rank, ours.dropout, ours.upcast) == (theirs.rank, theirs.dropout, theirs.upcast)
        if same and ours.method.startswith("moka") and not theirs.method.startswith("moka"):
            found.append({"rank": ours.rank, "dropout": ours.dropout, **compare(seconds, ours.name, theirs.name)})
    return found


def memory(
    model: Any, variants: Sequence[Variant], spec: Any, inputs: dict[str, Any], options: argparse.Namespace
) -> dict[str, Any]:
    """Of each alone: bytes that a forward keeps for its backward, and on a GPU the peak of two steps."""
    found = {}
    for variant in (None, *variants):
        copied = sharing_copy(model)
        adapted = copied if variant is None else variant.on(copied, spec)
        step = training_step(adapted, inputs)
        forward = lambda model=adapted: model(**inputs, use_cache=False).loss  # noqa: E731
        kept = kept_bytes(forward, adapted.parameters())
        meter = Meter(options.device)
        if meter.on_gpu:
            meter.run(step), meter.run(step)
        peak = {name: value for name, value in meter.facts().items() if value and name != "seconds"}
        found[BASES[0] if variant is None else variant.name] = {"kept_bytes": kept, **peak}
        del copied, adapted, step, forward
    return found


def share_of_peak(record: dict[str, Any], model: Any, options: argparse.Namespace) -> None:
    """Adds what the device's own matmul reaches, and which share of it each provider's Linears do."""
    peak = matmul_peak(options.device, model.dtype, size=256 if options.tiny else 8192)
    record["matmul_peak_tflops"] = rounded(peak / 1e12)
    for run in record["runs"]:
        counted = flops_per_token(model, recomputed=run["checkpointing"])
        run["flops_per_token"] = counted
        for facts in run["providers"].values():
            for name, flops in counted.items():
                facts[f"share_of_peak_{name}"] = rounded(facts["tokens_per_second"] * flops / peak)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = options_of(__doc__ or "", "bench_train_step")
    parser.add_argument("--full", action="store_true", help="the 7B shape in bfloat16")
    parser.add_argument("--tiny", action="store_true", help="with --full: a small model, the same code")
    parser.add_argument("--methods", nargs="+", help=f"keys of ADAPTERS, or {LOOP!r}")
    parser.add_argument("--ranks", type=int, nargs="+")
    parser.add_argument("--dropouts", type=float, nargs="+")
    parser.add_argument("--tokens", type=int, help="of the batch")
    parser.add_argument("--batch", type=int)
    parser.add_argument("--turns", type=int, help="user turns of a row")
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--checkpointing", nargs="+", choices=["off", "on"])
    options = parser.parse_args(arguments)
    small = dict(methods=["lora", "dora", "moka", LOOP], ranks=[8, 64], dropouts=[0.0, 0.05], tokens=1024, batch=4)
    full = dict(methods=["lora", "moka", "moka eager"], ranks=[16], dropouts=[0.0], tokens=4096, batch=1, turns=2)
    defaults = {"turns": 1, "checkpointing": ["on"] if options.full else ["off", "on"], **small}
    if options.full:
        defaults |= full
        options.out = RESULTS / "train_step_full.json" if options.out == RESULTS / "train_step.json" else options.out
    for name, value in defaults.items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    if options.full and not options.tiny and options.device == "cpu":
        parser.error("--full: the 7B shape needs a GPU. Take --device cuda, or --tiny.")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints and records; exit status 1 where a run is void."""
    options = parse(arguments)
    with fixed_threads(options.threads):
        model = build(options)
        record = {**header("bench_train_step", options, arguments), "dtype": str(model.dtype).removeprefix("torch.")}
        record |= {"model": FULL if options.full else "small", "tiny": options.tiny, "runs": []}
        record["decoder"] = {k: v for k, v in model.config.get_text_config().to_dict().items() if isinstance(v, int)}
        for choice in options.checkpointing:
            say(f"checkpointing {choice}")
            record["runs"].append(measure_steps(model, choice == "on", options))
            if options.full:
                share_of_peak(record, model, options)
            write(options.out, record)
    print(markdown(record))
    return int(any(run["run"]["void"] for run in record["runs"]))


def markdown(record: dict[str, Any]) -> str:
    """One row per ratio."""
    rows = [
        [
            "on" if run["checkpointing"] else "off",
            ratio["ours"],
            ratio["theirs"],
            f"{ratio['total']:.3f}",
            "" if ratio["adapter"] is None else f"{ratio['adapter']:.2f}",
            f"{run['providers'][ratio['ours']]['adapter_share_of_base']:.1%}",
        ]
        for run in record["runs"]
        for ratio in run["ratios"]
    ]
    return table(["checkpointing", "ours", "theirs", "step", "adapter time", "our adapter / base"], rows)


if __name__ == "__main__":
    sys.exit(main())
