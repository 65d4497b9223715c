"""Writes a folder whole or not at all."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from moka_peft.training.authors.origin import ORIGIN
from moka_peft.training.folder import RECIPE

OURS = {"adapter_config.json", "adapter_model.safetensors", "README.md", ORIGIN, RECIPE}
THEIRS = {"adapter_config.json", "adapter_model.bin", "non_lora_trainables.bin"}


def write_folder(target: Path, write: Callable[[Path], None], *, source: Path, overwrite: bool) -> None:
    """Calls `write` with a new folder beside `target`, which then takes the place of `target`.

    Raises ValueError where `target` is not empty, unless `overwrite`; even then where it is the source, or holds
    files that no import or export writes.
    """
    _check(target, source, overwrite)
    target = target.resolve()  # "." has no name, and a link stays one
    target.parent.mkdir(parents=True, exist_ok=True)
    partial, old = (target.with_name(f".{target.name}.{word}-{os.getpid()}") for word in ("partial", "old"))
    try:
        partial.mkdir()
        write(partial)
        if target.exists():
            os.replace(target, old)
        os.replace(partial, target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        if old.exists() and not target.exists():
            os.replace(old, target)
        shutil.rmtree(old, ignore_errors=True)


def _check(target: Path, source: Path, overwrite: bool) -> None:
    if target.exists() and not target.is_dir():
        raise ValueError(f"`target` is a file: {target}. Give the path of a folder.")
    files = sorted(path.name for path in target.iterdir()) if target.is_dir() else []
    if not files:
        return
    if not overwrite:
        raise ValueError(f"`target` is not empty: {target} holds {files[0]}. Choose another folder, or `--overwrite`.")
    if target.resolve() == source.resolve():
        raise ValueError(f"`target` is the source: {target}. Choose another folder.")
    if foreign := [name for name in files if name not in OURS | THEIRS]:
        raise ValueError(
            f"`target` holds files of something else ({foreign[0]}): {target}. Nothing of it is removed: choose "
            "another folder."
        )
