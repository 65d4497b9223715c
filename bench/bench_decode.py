"""Times inference with each adapter, merged and not: the prefill of a chat with media, a decode step, `generate`.

    python bench/bench_decode.py                               # five minutes on two cores
    python bench/bench_decode.py --full --device cuda          # the 7B shape in bfloat16 on one GPU
    python bench/bench_decode.py --full --tiny --device cpu --rounds 2 --out runs/decode_tiny.json

The frozen base twice, PEFT's LoRA and MokA at equal rank on all Linears of the decoder, unmerged and merged. A decode
step adds one token to a filled cache and takes it out again. Of `generate` one token's time is its time for several
new tokens less that for one. Also: which operators a merged decode step runs that the base's does not, and what a
merged MokA layer's Python adds to its base layer's on one token, in microseconds per adapted Linear.
Writes bench/results/decode.json, with `--full` bench/results/decode_full.json.
"""

from __future__ import annotations

import argparse
import collections
import copy
import json
import statistics
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from bench_train_step import FULL, build
from providers import BASES, Variant
from recording import RESULTS, header, options_of, say, table, timing, write
from torch import Tensor, nn

from moka_peft import Routing
from moka_peft.analysis.speed import ChatLayout, ChatTokens, compare, measure
from moka_peft.analysis.speed.adapters import routed
from moka_peft.analysis.speed.comparison import provider_facts, rounded, spread
from moka_peft.training.determinism import fixed_threads

PAIRS = (("moka", "lora"), ("moka merged", "lora merged"), ("moka merged", "base"), ("lora", "base"), ("moka", "base"))
CALLS = 200  # of a layer in one repetition: a single call is shorter than a timer tells


def models_of(base: nn.Module, chats: ChatTokens, options: argparse.Namespace) -> dict[str, Any]:
    """Name -> model in eval mode, each with weights of its own: shared ones would stay in the cache for the next."""
    models: dict[str, Any] = {name: copy.deepcopy(base) for name in BASES}
    for method in ("lora", options.method):
        name, variant = method.split()[0], Variant(method, options.rank)
        models[name] = variant.on(copy.deepcopy(base), chats.spec)
        models[f"{name} merged"] = variant.on(copy.deepcopy(base), chats.spec)
        models[f"{name} merged"].merge_adapter()
    return {name: model.eval() for name, model in models.items()}


def prefill(model: Any, inputs: dict[str, Tensor]) -> Callable[[], Any]:
    """One forward on the prompt that fills a new cache; logits of the last token, as `generate` asks for."""

    @torch.no_grad()
    def work() -> Any:
        return model(**inputs, use_cache=True, logits_to_keep=1)

    return work


def decode_step(model: Any, inputs: dict[str, Tensor]) -> Callable[[], Any]:
    """One forward on one token after the cached prompt; the cache is as before when it is done."""
    cache = prefill(model, inputs)().past_key_values
    mask = nn.functional.pad(inputs["attention_mask"], (0, 1), value=1)
    token = inputs["input_ids"][:, -1:]
    positions = torch.full_like(token, inputs["input_ids"].shape[1]).expand(3, -1, -1)  # of time, height, width
    step = {"input_ids": token, "attention_mask": mask, "position_ids": positions, "past_key_values": cache}

    @torch.no_grad()
    def work() -> None:
        model(**step, use_cache=True, logits_to_keep=1)
        cache.crop(-1)

    return work


def generation(model: Any, inputs: dict[str, Tensor], tokens: int) -> Callable[[], Any]:
    """`generate` of exactly `tokens` new tokens."""
    settings = dict(max_new_tokens=tokens, min_new_tokens=tokens, do_sample=False, pad_token_id=0)
    return lambda: model.generate(**inputs, **settings)


def measure_model(models: dict[str, Any], chats: ChatTokens, options: argparse.Namespace) -> dict[str, Any]:
    """Prefill, decode step and `generate`, each in an interleaved run of its own."""
    inputs = prompt(chats, options)
    works = {
        "prefill": {name: prefill(model, inputs) for name, model in models.items()},
        "decode_step": {name: decode_step(model, inputs) for name, model in models.items()},
    }
    found = {}
    for phase, providers in works.items():
        say(phase)
        found[phase] = facts_of(measure(providers, **timing(options)))
    if options.new_tokens > 1:
        say("generate")
        found["generate"] = measure_generate(models, inputs, options)
    return found


def measure_generate(models: dict[str, Any], inputs: dict[str, Tensor], options: argparse.Namespace) -> dict[str, Any]:
    """Seconds per new token after the first, paired by round."""
    ends = {"first": 1, "all": options.new_tokens}
    providers = {f"{end}: {name}": generation(m, inputs, n) for name, m in models.items() for end, n in ends.items()}
    run = measure(providers, **timing(options))
    steps = {
        name: [(b - a) / (options.new_tokens - 1) for a, b in zip(*_ends(run.seconds, name), strict=True)]
        for name in models
    }
    return {"new_tokens": options.new_tokens, "run": run.facts(), **_compared(steps)}


def _ends(seconds: dict[str, list[float]], name: str) -> tuple[list[float], list[float]]:
    return seconds[f"first: {name}"], seconds[f"all: {name}"]


def facts_of(run: Any) -> dict[str, Any]:
    return {"run": run.facts(), **_compared(run.seconds)}


def _compared(seconds: dict[str, list[float]]) -> dict[str, Any]:
    pairs = [compare(seconds, *pair) for pair in PAIRS if set(pair) <= set(seconds)]
    return {"providers": provider_facts(seconds), "ratios": pairs}


def prompt(chats: ChatTokens, options: argparse.Namespace) -> dict[str, Tensor]:
    """Chats with media whose last turn has an answer, from which decoding goes on."""
    layout = ChatLayout(batch=options.batch, length=options.tokens // options.batch)
    inputs = chats.write(layout, options.seed, options.device)
    return {name: value for name, value in inputs.items() if name != "labels"}


def operators(work: Callable[[], Any]) -> dict[str, int]:
    """Name -> how often one repetition calls the operator."""
    work()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        work()
    counts = collections.Counter[str]()
    for event in profile.key_averages():
        if event.key.startswith("aten::"):
            counts[event.key] += event.count
    return dict(counts)


def compare_operators(models: dict[str, Any], chats: ChatTokens, options: argparse.Namespace) -> dict[str, Any]:
    """Operators of one decode step by itself, and of the third one inside `generate`."""
    inputs = prompt(chats, options)
    alone, inside = {}, {}
    for name, model in models.items():
        if name != BASES[1]:
            alone[name] = operators(decode_step(model, inputs))
            three, four = (operators(generation(model, inputs, count)) for count in (3, 4))
            inside[name] = {key: count - three.get(key, 0) for key, count in four.items() if count != three.get(key)}
    return {"decode_step": beyond_base(alone), "step_inside_generate": beyond_base(inside)}


def beyond_base(counts: dict[str, dict[str, int]]) -> dict[str, Any]:
    """The base's operators, and how many more of which each other model calls."""
    base = counts["base"]
    more = {
        name: {
            key: own.get(key, 0) - base.get(key, 0) for key in sorted({*own, *base}) if own.get(key) != base.get(key)
        }
        for name, own in counts.items()
        if name != "base"
    }
    return {"base_total": sum(base.values()), "base": base, "more_than_base": more}


def measure_layer(options: argparse.Namespace) -> dict[str, Any]:
    """One token through one Linear: microseconds that each adapted layer takes longer than the base layer's call."""
    width, chats = 64, ChatTokens(range(1000))
    linear = nn.Linear(width, width).requires_grad_(False)
    text = torch.zeros(1, 1, dtype=torch.long)
    routing = Routing(text, text, chats.spec.modalities)
    x, providers = torch.randn(1, 1, width), {}
    with ExitStack() as stack:
        stack.enter_context(torch.no_grad())
        for name, model in models_of(nn.Sequential(linear), chats, options).items():
            if name.startswith("moka"):
                stack.enter_context(routed(model, routing))
            layer = model[0] if isinstance(model, nn.Sequential) else model.base_model.model[0]
            providers[name] = lambda layer=layer: [layer(x) for _ in range(CALLS)]
        run = measure(providers, **{**timing(options), "device": "cpu"})
    micro = {name: [s / CALLS * 1e6 for s in seconds] for name, seconds in run.seconds.items()}
    floor = statistics.median(micro["base"])
    own = {name: [a - b for a, b in zip(values, micro["base"], strict=True)] for name, values in micro.items()}
    return {
        "run": run.facts(),
        "width": width,
        "base_microseconds": rounded(floor),
        "more_microseconds": {name: spread(values) for name, values in own.items() if name not in BASES},
    }


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = options_of(__doc__ or "", "bench_decode")
    parser.add_argument("--full", action="store_true", help="the 7B shape in bfloat16")
    parser.add_argument("--tiny", action="store_true", help="with --full: a small model, the same code")
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--method", default="moka", help='"moka", or "moka eager", "moka triton"')
    parser.add_argument("--tokens", type=int, help="of the prompts")
    parser.add_argument("--batch", type=int)
    parser.add_argument("--new-tokens", type=int, default=16, help="of `generate`; 1 leaves it out")
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--layers", type=int, default=4)
    options = parser.parse_args(arguments)
    options.tokens = options.tokens or (4096 if options.full else 1024)
    options.batch = options.batch or (1 if options.full else 4)
    if options.full and options.out == RESULTS / "decode.json":
        options.out = RESULTS / "decode_full.json"
    if options.full and not options.tiny and options.device == "cpu":
        parser.error("--full: the 7B shape needs a GPU. Take --device cuda, or --tiny.")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints and records; exit status 1 where a run is void."""
    options = parse(arguments)
    with fixed_threads(options.threads):
        base = build(options)
        chats = ChatTokens.of(base.config)
        models = models_of(base, chats, options)
        record = {**header("bench_decode", options, arguments), "dtype": str(base.dtype).removeprefix("torch.")}
        record |= {"model": FULL if options.full else "small", "tiny": options.tiny, "rank": options.rank}
        record |= {"prompt_tokens": options.tokens, "batch": options.batch}
        record["operators"] = compare_operators(models, chats, options)
        record |= measure_model(models, chats, options)
        write(options.out, record)
        record["layer_call"] = measure_layer(options)
        write(options.out, record)
    print(markdown(record))
    for where, found in record["operators"].items():
        more = {name: sum(counts.values()) for name, counts in found["more_than_base"].items()}
        print(f"\noperators beyond the base's {found['base_total']}, {where}: {json.dumps(more)}")
    print(f"\na layer's call beyond the base's, microseconds: {json.dumps(record['layer_call']['more_microseconds'])}")
    runs = [part["run"] for part in record.values() if isinstance(part, dict) and "run" in part]
    return int(any(run["void"] for run in runs))


def markdown(record: dict[str, Any]) -> str:
    """One row per phase and pair."""
    rows = [
        [phase, ratio["ours"], ratio["theirs"], f"{ratio['total']:.3f}", _adapter(ratio)]
        for phase in ("prefill", "decode_step", "generate")
        for ratio in record.get(phase, {}).get("ratios", [])
    ]
    return table(["phase", "ours", "theirs", "total", "adapter time"], rows)


def _adapter(ratio: dict[str, Any]) -> str:
    return "" if ratio["adapter"] is None or ratio["theirs"] == "base" else f"{ratio['adapter']:.2f}"


if __name__ == "__main__":
    sys.exit(main())
