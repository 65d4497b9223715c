"""Times one adapted Linear, forward and backward: PEFT's LoRA and DoRA, MokA, and MokA with a loop over samples.

    python bench/bench_delta.py                                   # the whole grid: hours on two cores
    python bench/bench_delta.py --resume                          # goes on after an interruption
    python bench/bench_delta.py --widths 512 1024 --tokens 1024   # a part of it
    python bench/bench_delta.py --summary                         # reads what is recorded: table, plot, figures

One interleaved run per shape: the frozen base twice, then LoRA and MokA at every rank and dropout; DoRA at rank 16
in 1024-wide shapes; and, in batch 8, the per-sample loop at width 1024. Three modalities, float32, one turn per sample.
x takes a gradient as inside a network, so both the base and the adapters compute it. All repetitions use one Routing:
the plan that is derived from it is shared by all layers of a model's forward; its time is recorded by itself.
Writes bench/results/delta.json after every shape, and docs/images/layer_speed.png.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from delta_report import markdown, plot, summary
from providers import LOOP, LayerWork, Variant, layer_providers
from recording import IMAGES, header, options_of, say, timing, write

from moka_peft import Routing
from moka_peft.analysis.speed import ChatLayout, ChatTokens, compare, measure
from moka_peft.analysis.speed.comparison import provider_facts
from moka_peft.analysis.speed.rounds import time_rounds
from moka_peft.training.determinism import fixed_threads

MODALITIES = 3
LOOP_WIDTH, LOOP_BATCH, SELECTED_RANK = 1024, 8, 16


def shapes(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Every shape of the grid, small ones first, then those of the loop."""
    grid = itertools.product(options.tokens, options.widths, options.out_factors)
    for tokens, width, factor in grid:
        yield {"kind": "grid", "width": width, "out": int(width * factor), "tokens": tokens, "batch": options.batch}
    if not options.no_loop:
        for tokens in options.tokens:
            sizes = {"width": options.loop_width, "out": options.loop_width, "tokens": tokens}
            yield {"kind": "loop", **sizes, "batch": LOOP_BATCH}


def variants_of(shape: dict[str, Any], options: argparse.Namespace) -> list[Variant]:
    """The loop's shapes: LoRA, MokA and the loop at one rank. The grid's: all ranks, DoRA at one width."""
    rank = SELECTED_RANK if SELECTED_RANK in options.ranks else options.ranks[0]
    if shape["kind"] == "loop":
        methods = ("lora", options.method, LOOP)
        return [Variant(method, rank, p) for p in options.dropouts for method in methods]
    sizes = itertools.product(options.ranks, options.dropouts)
    found = [Variant(method, r, p) for r, p in sizes for method in ("lora", options.method)]
    if shape["width"] == options.loop_width:
        found += [Variant("dora", rank, p) for p in options.dropouts]
    return found


def measure_shape(shape: dict[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    """The run of one shape: providers, MokA over LoRA at each rank and dropout, and the bytes that each keeps."""
    layout = ChatLayout(batch=shape["batch"], length=shape["tokens"] // shape["batch"], modalities=MODALITIES)
    chats = ChatTokens(range(1000), MODALITIES)
    routing = chats.routing(layout, options.seed, options.device)
    work = LayerWork.of(shape["width"], shape["out"], chats.spec, routing, options.seed)
    variants = variants_of(shape, options)
    run = measure(layer_providers(work, variants), **timing(options))
    kept = {variant.name: work.kept(variant) for variant in variants}
    ratios = []
    for ours in variants:
        if ours.method == options.method:
            theirs = Variant("lora", ours.rank, ours.dropout)
            ratios.append(_pair(run.seconds, kept, ours, theirs))
    for loop in variants:
        if loop.method == LOOP:
            ratios.append(_pair(run.seconds, kept, loop, Variant(options.method, loop.rank, loop.dropout)))
    return {
        **shape,
        "instruction_tokens_per_turn": layout.parts(layout.length)[1],
        "run": run.facts(),
        "plan_seconds": plan_seconds(work, options),
        "providers": provider_facts(run.seconds),
        "kept_bytes": {"base": work.kept(None), **kept},
        "ratios": ratios,
    }


def _pair(seconds: Any, kept: dict[str, int], ours: Variant, theirs: Variant) -> dict[str, Any]:
    sizes = {"rank": ours.rank, "dropout": ours.dropout}
    bytes_kept = {"kept_bytes": kept[ours.name], "their_kept_bytes": kept[theirs.name]}
    return {**sizes, **compare(seconds, ours.name, theirs.name), **bytes_kept}


def plan_seconds(work: LayerWork, options: argparse.Namespace) -> float:
    """What the first layer of a forward takes longer than the others: it derives the plan from the routing."""
    old = work.routing
    variant = Variant(options.method, options.ranks[0])

    def once(routing: Routing) -> Any:
        return LayerWork(work.linear, work.x, work.gradient, work.spec, routing).provider(variant)

    fresh = [once(Routing(old.modality, old.turn, old.modalities)) for _ in range(3)]
    turns = iter(fresh)
    works = {"same": once(old), "fresh": lambda: next(turns)()}
    seconds = time_rounds(works, rounds=3, seed=0, device=options.device)
    return round(max(min(seconds["fresh"]) - min(seconds["same"]), 0.0), 6)


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = options_of(__doc__ or "", "bench_delta")
    parser.add_argument("--widths", type=int, nargs="+", default=[512, 1024, 2048, 4096])
    parser.add_argument("--out-factors", type=float, nargs="+", default=[1, 2.75])
    parser.add_argument("--tokens", type=int, nargs="+", default=[1024, 4096], help="of the batch")
    parser.add_argument("--ranks", type=int, nargs="+", default=[4, 16, 64])
    parser.add_argument("--dropouts", type=float, nargs="+", default=[0.0, 0.05])
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--loop-width", type=int, default=LOOP_WIDTH, help="the width with DoRA, and of the loop")
    parser.add_argument("--no-loop", action="store_true", help="leave out the per-sample loop in batch 8")
    parser.add_argument("--method", default="moka", help='"moka", or "moka eager", "moka triton"')
    parser.add_argument("--resume", action="store_true", help="keep recorded shapes that are not void")
    parser.add_argument("--summary", action="store_true", help="measure nothing, read what is recorded")
    parser.add_argument("--plot", type=Path, default=IMAGES / "layer_speed.png")
    return parser.parse_args(arguments)


def recorded(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Shapes that need no measuring again."""
    if not (options.resume or options.summary) or not options.out.exists():
        return []
    found = json.loads(options.out.read_text(encoding="utf-8"))["shapes"]
    return [shape for shape in found if options.summary or not shape["run"]["void"]]


def is_recorded(shape: dict[str, Any], record: dict[str, Any]) -> bool:
    return any(all(done[key] == value for key, value in shape.items()) for done in record["shapes"])


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints and records; exit status 1 where a shape is void."""
    options = parse(arguments)
    done = recorded(options)
    with fixed_threads(options.threads):
        record = {**header("bench_delta", options, arguments), "modalities": MODALITIES, "summary": {}, "shapes": done}
        for shape in () if options.summary else shapes(options):
            if is_recorded(shape, record):
                continue
            say(str(shape))
            record["shapes"].append(measure_shape(shape, options))
            record["summary"] = summary(record["shapes"])
            write(options.out, record)
    record["summary"] = summary(record["shapes"])
    print(markdown(record["shapes"]), json.dumps(record["summary"], indent=1), sep="\n\n")
    plot(record["shapes"], options.plot)
    return int(any(shape["run"]["void"] for shape in record["shapes"]))


if __name__ == "__main__":
    sys.exit(main())
