"""`moka env`: what is installed and what it runs on, for a bug report."""

import json
import os
import platform
from importlib import metadata
from typing import Annotated, Any

import typer

PACKAGES = (
    "moka-peft", "torch", "transformers", "peft", "accelerate", "trl", "triton", "bitsandbytes", "numpy",
    "pillow", "soundfile", "av",
)  # fmt: skip


def run(as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False) -> None:
    """Show versions and devices, for a bug report."""
    facts = environment()
    if as_json:
        print(json.dumps(facts))
        return
    for name, value in facts.items():
        print(f"{name + ':':14}{value if value is not None else 'not installed'}")


def environment() -> dict[str, Any]:
    """Versions of what matters here (None where absent), the machine, and its accelerators."""
    import torch

    system = f"{platform.system()} {platform.machine()}"
    facts: dict[str, Any] = {"python": platform.python_version(), "platform": system}
    facts |= {name: _version(name) for name in PACKAGES}
    facts["cpus"] = os.cpu_count()
    facts["threads"] = torch.get_num_threads()
    devices = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    facts["cuda"] = torch.version.cuda
    facts["devices"] = devices or ["cpu"]
    return facts


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
