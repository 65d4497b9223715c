"""Times every Triton kernel beside torch, and how much of the memory's bandwidth it reaches.

    python bench/bench_kernels.py                     # on CUDA: minutes
    TRITON_INTERPRET=1 python bench/bench_kernels.py --device cpu --tiny    # shows that it runs; its times mean nothing

One layer's shapes of Qwen2.5-VL-7B, bfloat16, 4,096 tokens, one turn with an image. Providers take turns within every
repetition; caches are emptied before each call. `share_of_copy`: the bytes that cannot be avoided (x or g read once, dx
or y read and written) per second, over those of a device-to-device copy. `host_us`: until the call returns. `compiled`
is torch.compile of what torch does, where that is a whole expression. Writes bench/results/kernels.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from moka_peft import Routing
from moka_peft.cli.env import environment
from moka_peft.ops import eager, triton
from moka_peft.ops.dropout import Dropout
from moka_peft.ops.triton.available import require
from moka_peft.routing.blocks import blocks_of
from moka_peft.routing.plan import plan_of

RESULT = Path(__file__).parent / "results" / "kernels.json"
SHAPES = [(3584, 3584), (3584, 18944), (18944, 3584)]  # in, out: q and o, gate and up, down
RANKS = (16, 64)
CACHE_BYTES = 2**28  # more than any GPU's L2
Work = Callable[[], Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="shapes that the interpreter gets through")
    parser.add_argument("--repetitions", type=int, default=25)
    parser.add_argument("--output", type=Path, help=f"default: {RESULT}; --tiny writes nothing")
    given = parser.parse_args()
    device = torch.device(given.device, 0) if given.device == "cuda" else torch.device(given.device)
    dtype, tokens, repetitions = (torch.float32, 48, 1) if given.tiny else (torch.bfloat16, 4096, given.repetitions)
    require(device, dtype, max(RANKS))
    copy = copy_bandwidth(device, 2**16 if given.tiny else 2**30)
    rows = []
    for inside, outside in [(48, 80)] if given.tiny else SHAPES:
        for rank in (4,) if given.tiny else RANKS:
            for name, size, providers in works(device, dtype, tokens, inside, outside, rank, compiles=not given.tiny):
                row = {"work": name, "in": inside, "out": outside, "rank": rank}
                rows.append(row | measure(device, providers, repetitions, size, copy))
                print(json.dumps(rows[-1]))
    command = " ".join(["python", "bench/bench_kernels.py", *sys.argv[1:]])
    facts = {
        "environment": environment(),
        "command": command,
        "seed": 0,
        "dtype": str(dtype),
        "tokens": tokens,
        "copy_gb_per_s": copy,
        "rows": rows,
    }
    output = given.output or (None if given.tiny else RESULT)
    if output:
        output.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


def one_turn(tokens: int, device: torch.device) -> Routing:
    """A sixteenth of other text, an image, a sixty-fourth of instruction, and an answer of a quarter."""
    modality, turn = torch.zeros(2, 1, tokens, dtype=torch.int64)
    first, question, answer = tokens // 16, tokens * 3 // 4 - max(tokens // 64, 1), tokens * 3 // 4
    modality[:, first:question] = 1
    turn[:, first:answer] = 1
    return Routing(modality.to(device), turn.to(device))


def works(
    device: torch.device, dtype: torch.dtype, tokens: int, inside: int, outside: int, rank: int, *, compiles: bool
) -> list[tuple[str, int, dict[str, Work]]]:
    """What to time: name, the bytes that it must move, and the providers."""
    torch.manual_seed(0)

    def noise(*shape: int, kind: torch.dtype = dtype) -> Tensor:
        return torch.randn(*shape, device=device, dtype=kind)

    routing = one_turn(tokens, device)
    plan, blocks = plan_of(routing, 2), blocks_of(routing, (1.0,), torch.float32)
    x, dx, dz, u = noise(tokens, inside), noise(tokens, inside), noise(tokens, rank), noise(tokens, rank)
    y, g = noise(tokens, outside), noise(tokens, outside)
    A, B = [noise(rank, inside) for _ in range(2)], noise(outside, rank)
    z, du = noise(tokens, rank, kind=torch.float32), noise(tokens, rank, kind=torch.float32)
    read_x, read_y = x.numel() * x.element_size(), y.numel() * y.element_size()
    dropout = Dropout(0.0625, 1)

    torch._dynamo.reset()  # or it stops compiling after eight shapes

    def both(call: Callable[[Any], Any]) -> dict[str, Work]:
        return {"triton": lambda: call(triton), "eager": lambda: call(eager)}

    def all_three(call: Callable[[Any], Any]) -> dict[str, Work]:
        return both(call) | ({"compiled": torch.compile(lambda: call(eager), dynamic=False)} if compiles else {})

    states = {parts: parts.attend(z, blocks)[1] for parts in (triton, eager)}
    return [
        ("project", read_x, both(lambda parts: parts.project(x, A, plan, None))),
        ("project, dropout", read_x, both(lambda parts: parts.project(x, A, plan, dropout))),
        ("project_backward", 3 * read_x, both(lambda parts: parts.project_backward(dx, dz, x, A, plan, None))),
        (
            "project_backward, dropout",
            3 * read_x,
            both(lambda parts: parts.project_backward(dx, dz, x, A, plan, dropout)),
        ),
        ("attend", 2 * z.numel() * 4, both(lambda parts: parts.attend(z, blocks))),
        (
            "attend_backward",
            3 * z.numel() * 4,
            both(lambda parts: parts.attend_backward(z, du.clone(), blocks, states[parts])),  # it may write to du
        ),
        ("expand_", 2 * read_y, all_three(lambda parts: parts.expand_(y, u, B, 0.001))),
        ("expand_backward", read_y, all_three(lambda parts: parts.expand_backward(g, u, B, 0.5))),
    ]


def measure(device: torch.device, providers: dict[str, Work], repetitions: int, size: int, copy: float) -> dict:
    """Per provider the median and the quartiles of its microseconds, after two calls that are not counted."""
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in providers}
    for repetition in range(repetitions + 2):
        for name, work in providers.items():
            found = timed(device, work)
            if repetition >= 2:
                taken[name].append(found)
    return {name: summary(found, size, copy) for name, found in taken.items()}


def summary(found: list[tuple[float, float]], size: int, copy: float) -> dict[str, float]:
    device_us, host_us = zip(*found, strict=True)
    low, middle, high = statistics.quantiles(device_us, n=4) if len(device_us) > 1 else device_us * 3
    return {
        "us": round(middle, 2),
        "quartiles_us": [round(low, 2), round(high, 2)],
        "host_us": round(statistics.median(host_us), 2),
        "share_of_copy": round(size / (middle * 1e3) / copy, 4),
    }


def timed(device: torch.device, work: Work) -> tuple[float, float]:
    """Microseconds on the device, and until the call returns."""
    if device.type != "cuda":
        start = time.perf_counter()
        work()
        seconds = time.perf_counter() - start
        return seconds * 1e6, seconds * 1e6
    torch.empty(CACHE_BYTES, dtype=torch.uint8, device=device).zero_()
    torch.cuda.synchronize()
    torch.cuda._sleep(2_000_000)  # the device waits a millisecond, so that launches queue up and no gap is timed
    events = [torch.cuda.Event(enable_timing=True) for _ in range(2)]
    events[0].record()
    start = time.perf_counter()
    work()
    seconds = time.perf_counter() - start
    events[1].record()
    torch.cuda.synchronize()
    return events[0].elapsed_time(events[1]) * 1e3, seconds * 1e6


def copy_bandwidth(device: torch.device, size: int) -> float:
    """GB a second of a copy on the device, read and written counted."""
    source, target = (torch.zeros(size, dtype=torch.uint8, device=device) for _ in range(2))
    found = [timed(device, lambda: target.copy_(source))[0] for _ in range(7)]
    return round(2 * size / (statistics.median(found) * 1e3), 2)


if __name__ == "__main__":
    main()
