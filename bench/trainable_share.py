"""Counts what LoRA and MokA train of the paper's audio-visual-text model at full size, beside the published shares.

    python bench/trainable_share.py        # seconds; on the meta device, nothing is downloaded

LLaMA2-7B, CLIP ViT-L/14, BEATs, two Q-Formers of two layers that train in full; r = 4 on all seven Linears of every
decoder layer. Writes bench/results/trainable_share.json.
"""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import Any

from recording import RESULTS, write

from moka_peft.cli.env import environment
from moka_peft.training.plan.architecture import adapted, base_on
from moka_peft.training.plan.memory import count_parts
from moka_peft.training.recipe import Adapter

QFORMER = {"type": "qformer", "num_queries": 32, "num_layers": 2}
MODEL = {
    "text": "meta-llama/Llama-2-7b-chat-hf",
    "vision": {"name": "openai/clip-vit-large-patch14", "feature_layers": [23], "projector": QFORMER},
    "audio": {"name": "BEATs_iter3_plus_AS2M.pt", "projector": QFORMER},
    "dtype": "bfloat16",
}
PUBLISHED = {"lora": 1.20, "moka": 1.33}  # per cent: MokA, arXiv 2506.05191


def count(method: str) -> dict[str, Any]:
    """Parameters by part, and the share that trains: of all, and as PEFT counts, which adds the frozen originals of
    what trains in copies."""
    model = adapted(base_on("meta", MODEL), Adapter(method=method, r=4).model_dump(), ["projectors"])
    parts = count_parts(model)
    total, trained = (sum(getattr(part, name) for part in parts.values()) for name in ("parameters", "trained"))
    _, counted_by_peft = model.get_nb_trainable_parameters()
    return {
        "published_percent": PUBLISHED[method],
        "percent": round(100 * trained / total, 3),
        "percent_as_peft_counts": round(100 * trained / counted_by_peft, 3),
        "parameters": total,
        "trained": trained,
        "parts": {name: asdict(part) for name, part in parts.items()},
    }


def main() -> None:
    """Counts, prints and records."""
    found = {method: count(method) for method in PUBLISHED}
    for method, facts in found.items():
        print(f"{method}: {facts['percent']} % of {facts['parameters']:,} (published: {facts['published_percent']} %)")
    command = " ".join(["python", "bench/trainable_share.py", *sys.argv[1:]])
    record = {"environment": environment(), "command": command, "seed": None, "model": MODEL, "methods": found}
    write(RESULTS / "trainable_share.json", record)


if __name__ == "__main__":
    main()
