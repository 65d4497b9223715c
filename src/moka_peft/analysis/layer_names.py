"""Where a layer stands in a model, read from its name."""

import re


def place_of(name: str) -> tuple[int, str]:
    """A layer's number and the projection's name in it: of "model.layers.3.mlp.up_proj" 3 and "mlp.up_proj"."""
    match = re.search(r"(?:^|\.)(\d+)\.(.+)$", name)
    return (int(match[1]), match[2]) if match else (0, name)
