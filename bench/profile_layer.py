"""Shows where the time of one adapted Linear goes: torch's profiler on LoRA's and MokA's forward and backward.

    python bench/profile_layer.py           # a minute on two cores

By kind of work, in microseconds of one repetition, what the operators themselves took on the calling thread; "rest":
other operators, and Python and autograd between them, as far as the profiler has an event for it. The profiler makes
every operator dearer, small ones most: "wall" is the time without it, so the columns do not add up to it. The base is
measured alone and taken off. Writes bench/results/layer_profile.json.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from providers import LayerWork, Variant
from recording import header, options_of, say, table, write
from torch.profiler import ProfilerActivity, profile

from moka_peft.analysis.speed import ChatLayout, ChatTokens
from moka_peft.training.determinism import fixed_threads

KINDS = {
    "matmul": ("aten::mm", "aten::addmm", "aten::addmm_", "aten::bmm", "aten::baddbmm", "aten::matmul"),
    "softmax": ("aten::_softmax", "aten::_softmax_backward_data", "aten::_scaled_dot_product_flash"),
    "elementwise": ("aten::mul", "aten::mul_", "aten::add", "aten::add_", "aten::addcmul", "aten::addcmul_"),
    "dropout": ("aten::bernoulli_", "aten::random_", "aten::ge", "aten::div_", "aten::native_dropout"),
    "indexing": ("aten::index_select", "aten::index_copy_", "aten::index_add_", "aten::scatter_add_", "aten::cat"),
    "copies": ("aten::copy_", "aten::fill_", "aten::zero_", "aten::clone"),
}


def kind_of(operator: str) -> str:
    """The kind of an operator's own time."""
    exact = next((kind for kind, names in KINDS.items() if operator in names), None)
    return exact or next((kind for kind, names in KINDS.items() if operator.startswith(names[-1])), "rest")


def by_kind(work: Callable[[], Any], repetitions: int) -> dict[str, float]:
    """Microseconds per repetition and kind; "wall" without the profiler."""
    for _ in range(5):
        work()
    start = time.perf_counter()
    for _ in range(repetitions):
        work()
    wall = (time.perf_counter() - start) / repetitions * 1e6
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        for _ in range(repetitions):
            work()
    found: Counter[str] = Counter()
    for event in profiler.key_averages():
        found[kind_of(event.key)] += event.self_cpu_time_total / repetitions
    return {kind: round(found[kind], 1) for kind in (*KINDS, "rest")} | {"wall": round(wall, 1)}


def measure(width: int, tokens: int, rank: int, dropout: float, options: argparse.Namespace) -> dict[str, Any]:
    chats = ChatTokens(range(1000), 3)
    routing = chats.routing(ChatLayout(batch=4, length=tokens // 4), options.seed, options.device)
    work = LayerWork.of(width, width, chats.spec, routing, options.seed)
    variants = {"base": None, "lora": Variant("lora", rank, dropout), "moka": Variant("moka", rank, dropout)}
    found = {name: by_kind(work.provider(variant), options.rounds) for name, variant in variants.items()}
    shape = {"width": width, "out": width, "tokens": tokens, "rank": rank, "dropout": dropout}
    over = {
        name: {kind: round(found[name][kind] - found["base"][kind], 1) for kind in found[name]}
        for name in ("lora", "moka")
    }
    return {**shape, "microseconds": found, "more_than_base": over}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints and records."""
    parser = options_of(__doc__ or "", "layer_profile")
    parser.add_argument("--widths", type=int, nargs="+", default=[512, 1024])
    parser.add_argument("--tokens", type=int, default=1024)
    parser.add_argument("--ranks", type=int, nargs="+", default=[4, 64])
    parser.add_argument("--dropouts", type=float, nargs="+", default=[0.0, 0.05])
    options = parser.parse_args(arguments)
    with fixed_threads(options.threads):
        record = {**header("profile_layer", options, arguments), "layers": []}
        for width in options.widths:
            for rank in options.ranks:
                for dropout in options.dropouts:
                    say(f"{width} to {width}, rank {rank}, dropout {dropout:g}")
                    record["layers"].append(measure(width, options.tokens, rank, dropout, options))
                    write(options.out, record)
    rows = [
        [layer["width"], layer["rank"], layer["dropout"], name, *layer["more_than_base"][name].values()]
        for layer in record["layers"]
        for name in ("lora", "moka")
    ]
    print(table(["width", "rank", "dropout", "adapter", *KINDS, "rest", "wall"], rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
