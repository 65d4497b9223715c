"""Times how one adapted Linear grows with tokens, modalities, turns, and with media in short runs.

    python bench/bench_scaling.py                    # half an hour on two cores
    python bench/bench_scaling.py --parts tokens     # one of tokens, modalities, turns, alternating

Forward and backward, float32, one interleaved run per part, which holds the frozen base of every size twice. 64
instruction tokens a turn. tokens: one row of 1,024 to 16,384 in turns of 1,024 each. modalities: 2 to 8 in one turn
per row. turns: 1 to 16 in one row of 4,096. alternating: media and instruction in runs of 1 to 7 tokens in random
order against one run each, so many of each kind in both. Writes bench/results/scaling.json.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from providers import LayerWork, Variant
from recording import header, options_of, say, table, timing, write

from moka_peft.analysis.speed import ChatLayout, ChatTokens, measure
from moka_peft.analysis.speed.comparison import adapter_seconds, rounded, spread
from moka_peft.analysis.speed.rounds import AGAIN, Run
from moka_peft.training.determinism import fixed_threads


@dataclass(frozen=True)
class Case:
    """One size of a part: `value` of what grows."""

    value: int
    layout: ChatLayout
    shares_base: bool = True  # with the part's first case: the base does not know what grows


def cases(part: str, options: argparse.Namespace) -> list[Case]:
    """The sizes of a part, the smallest first; the others are compared with it."""
    one = ChatLayout(batch=1, length=options.length, turns=1)
    if part == "tokens":
        each = options.turn_length
        return [Case(n, replace(one, length=n, turns=max(n // each, 1)), shares_base=False) for n in options.tokens]
    if part == "modalities":
        rows = replace(one, batch=4, length=options.length // 4)
        return [Case(count, replace(rows, modalities=count)) for count in options.modalities]
    if part == "turns":
        return [Case(count, replace(one, turns=count)) for count in options.turns]
    rows = replace(one, batch=4, length=options.length // 4)
    return [Case(int(alternating), replace(rows, alternating=alternating)) for alternating in (False, True)]


def measure_part(part: str, width: int, rank: int, options: argparse.Namespace) -> dict[str, Any]:
    """One interleaved run of a part: every size of MokA and LoRA, and their bases."""
    sizes, providers = cases(part, options), {}
    for case in sizes:
        providers |= providers_of(case, width, rank, options, with_base=case is sizes[0] or not case.shares_base)
    run = measure(providers, **timing(options))
    rows = [facts_of(run, case, sizes[0]) for case in sizes]
    return {"part": part, "width": width, "rank": rank, "run": run.facts(), "sizes": rows}


def providers_of(
    case: Case, width: int, rank: int, options: argparse.Namespace, *, with_base: bool
) -> dict[str, Callable[[], None]]:
    """MokA and LoRA of one size; the base, twice, where it has its own."""
    chats = ChatTokens(range(1000), case.layout.modalities)
    routing = chats.routing(case.layout, options.seed, options.device)
    work = LayerWork.of(width, int(width * options.out_factor), chats.spec, routing, options.seed)
    found = {f"{method} {case.value}": work.provider(Variant(method, rank)) for method in (options.method, "lora")}
    if with_base:
        base = f"base {case.value}"
        found |= {base: work.provider(None), base + AGAIN: work.provider(None)}
    return {name.replace(options.method, "moka", 1): step for name, step in found.items()}


def facts_of(run: Run, case: Case, first: Case) -> dict[str, Any]:
    """Seconds of one size, and its growth: over the first size, per token, paired by round."""
    base = f"base {case.value}" if f"base {case.value}" in run.seconds else f"base {first.value}"
    more = case.layout.tokens / first.layout.tokens
    facts: dict[str, Any] = {"value": case.value, "tokens": case.layout.tokens, "turns": case.layout.turns}
    facts["base_seconds"] = rounded(run.median(base))
    for method in ("moka", "lora"):
        name, of_first = f"{method} {case.value}", f"{method} {first.value}"
        own = adapter_seconds(run.seconds, name, base)
        growth = [a / b / more for a, b in zip(run.seconds[name], run.seconds[of_first], strict=True)]
        facts[method] = {
            "seconds": rounded(run.median(name)),
            "adapter_seconds": spread(own),
            "layer_growth": rounded(run.median(name) / run.median(of_first) / more),
            "layer_growth_by_round": spread(growth),
        }
    own, start = facts["moka"]["adapter_seconds"]["median"], _adapter_of_first(run, first)
    facts["moka"]["adapter_growth"] = rounded(own / start / more) if start > 0 else None
    return facts


def _adapter_of_first(run: Run, first: Case) -> float:
    return spread(adapter_seconds(run.seconds, f"moka {first.value}", f"base {first.value}"))["median"]


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = options_of(__doc__ or "", "bench_scaling")
    parts = ["tokens", "modalities", "turns", "alternating"]
    parser.add_argument("--parts", nargs="+", choices=parts, default=parts)
    parser.add_argument("--widths", type=int, nargs="+", default=[1024, 2048])
    parser.add_argument("--out-factor", type=float, default=1)
    parser.add_argument("--ranks", type=int, nargs="+", default=[16, 64])
    parser.add_argument("--tokens", type=int, nargs="+", default=[1024, 2048, 4096, 8192, 16384])
    parser.add_argument("--turn-length", type=int, default=1024)
    parser.add_argument("--length", type=int, default=4096, help="tokens where they do not grow")
    parser.add_argument("--modalities", type=int, nargs="+", default=[2, 3, 4, 8])
    parser.add_argument("--turns", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--method", default="moka", help='"moka", or "moka eager", "moka triton"')
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints and records; exit status 1 where a run is void."""
    options = parse(arguments)
    with fixed_threads(options.threads):
        record: dict[str, Any] = {**header("bench_scaling", options, arguments), "parts": []}
        for part in options.parts:
            for width in options.widths[:1] if part == "tokens" else options.widths:
                for rank in options.ranks:
                    say(f"{part}, width {width}, rank {rank}")
                    record["parts"].append(measure_part(part, width, rank, options))
                    write(options.out, record)
    print(markdown(record))
    return int(any(part["run"]["void"] for part in record["parts"]))


def markdown(record: dict[str, Any]) -> str:
    """One row per part: what the largest size takes of the smallest, per token."""
    rows = []
    for part in record["parts"]:
        first, last = part["sizes"][0], part["sizes"][-1]
        moka, lora, growth = last["moka"], last["lora"], last["moka"]["adapter_growth"]
        grown = "" if growth is None else f"{growth:.2f}"
        rows.append(
            [part["part"], part["width"], part["rank"], f"{first['value']} to {last['value']}"]
            + [
                f"{moka['layer_growth']:.3f}",
                grown,
                f"{lora['layer_growth']:.3f}",
                "void" if part["run"]["void"] else "",
            ]
        )
    return table(["what grows", "width", "rank", "from, to", "layer", "adapter", "LoRA's layer", ""], rows)


if __name__ == "__main__":
    sys.exit(main())
