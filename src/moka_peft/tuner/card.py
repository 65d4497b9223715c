"""The README of an adapter folder: its first lines tell how to load it, the needed import included."""

from __future__ import annotations

from pathlib import Path
from typing import Any

MARK = "<!-- moka-peft: how to load -->"

TEXT = """{mark}
# {name} adapter

Install `moka-peft` and import it first: without the import, PEFT stops with `KeyError: '{peft_type}'`.

```python
import moka_peft  # registers the adapter type; needed before loading
from peft import PeftModel

base = ...  # the base model this adapter was trained on: {base}
model = PeftModel.from_pretrained(base, "PATH_TO_THIS_FOLDER")
```
"""


def write_card(folder: str, peft_type: Any, base: str | None) -> None:
    """Puts the loading instructions at the head of README.md in `folder`, after front matter if there is any."""
    path = Path(folder) / "README.md"
    old = path.read_text(encoding="utf-8") if path.exists() else ""
    if MARK in old:
        return
    front = ""
    if old.startswith("---\n") and "\n---\n" in old:
        front, old = old.split("\n---\n", 1)
        front += "\n---\n"
    kind = str(peft_type.value)
    name = "MokA" if kind == "MOKA" else kind.removeprefix("MOKA_").lower()
    text = TEXT.format(mark=MARK, name=name, peft_type=kind, base=base or "see below")
    path.write_text(front + text + "\n" + old.lstrip("\n"), encoding="utf-8")
