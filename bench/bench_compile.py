"""Times a forward and backward of a small LLaMA with LoRA and with MokA, eager and under torch.compile(fullgraph=True).

    python bench/bench_compile.py           # three minutes on two cores, most of them compilation

Two layers of width 512, all Linears, four chats with three modalities, routed explicitly. No optimizer, and no gradient
of the embeddings: what makes their output take one (`enable_input_require_grads`) would break the graph. Writes
bench/results/compile.json.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch
from providers import BASES, Variant
from recording import header, options_of, table, timing, write
from transformers import LlamaConfig, LlamaForCausalLM

from moka_peft.analysis.speed import ChatLayout, ChatTokens, compare, measure, sharing_copy
from moka_peft.analysis.speed.comparison import provider_facts
from moka_peft.training.determinism import fixed_threads

PAIRS = (("moka compiled", "moka"), ("lora compiled", "lora"), ("moka compiled", "lora compiled"), ("moka", "lora"))


def work_of(model: Any, inputs: dict[str, Any]) -> Callable[[], None]:
    """Forward and, where something is trained, backward."""

    def work() -> None:
        loss = model(**inputs, use_cache=False).loss
        if loss.requires_grad:
            loss.backward()
        model.zero_grad(set_to_none=True)

    return work


def providers_of(options: Any) -> dict[str, Callable[[], None]]:
    sizes = dict(hidden_size=512, intermediate_size=1376, num_attention_heads=8, num_key_value_heads=8)
    torch.manual_seed(options.seed)
    config = LlamaConfig(**sizes, num_hidden_layers=options.layers, vocab_size=1024)
    base = LlamaForCausalLM(config).requires_grad_(False).to(options.device).train()
    chats, layout = ChatTokens(range(1000)), ChatLayout(batch=4, length=options.tokens // 4)
    inputs = chats.write(layout, options.seed, options.device)
    found = {name: work_of(sharing_copy(base), inputs) for name in BASES}
    routed = {**inputs, "routing": chats.routing(layout, options.seed, options.device)}
    for method, given in (("lora", inputs), ("moka", routed)):
        model = Variant(method, options.rank).on(sharing_copy(base), chats.spec).train()
        found[method] = work_of(model, given)
        found[f"{method} compiled"] = work_of(torch.compile(model, fullgraph=True), given)
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints and records; exit status 1 where the run is void."""
    parser = options_of(__doc__ or "", "bench_compile")
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=1024, help="of the batch")
    parser.add_argument("--rank", type=int, default=8)
    options = parser.parse_args(arguments)
    with fixed_threads(options.threads):
        record = {**header("bench_compile", options, arguments), "layers": options.layers, "rank": options.rank}
        run = measure(providers_of(options), **timing(options))
    ratios = [compare(run.seconds, *pair) for pair in PAIRS]
    record |= {"tokens": options.tokens, "run": run.facts(), "providers": provider_facts(run.seconds), "ratios": ratios}
    write(options.out, record)
    print(table(["ours", "theirs", "total"], [[r["ours"], r["theirs"], r["total"]] for r in ratios]))
    return int(bool(run.void))


if __name__ == "__main__":
    sys.exit(main())
