"""The output folder of a run: what is in it, and whether a run may write there - asked before it starts."""

import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

RECIPE = "recipe.yaml"
NOTES = "run.json"
METRICS = "metrics.json"
ANSWERS = "answers.jsonl"
PLOT = "loss.png"
CHECKPOINTS = "checkpoints"
SKIPPED = "skipped"
SCORES_PLOT, LEARNING_RATE_PLOT = "scores.png", "learning_rate.png"
WITHOUT_EFFECT = {
    "output_dir",
    "push_to_hub",
    "training.report_to",
    "data.cache",
    "evaluation.benchmarks",
}  # on the result: a resumed run may change them
ALWAYS_SO = {"evaluation.before": True}
"""What held for runs whose recipes were written before these keys were there."""


def claim_folder(folder: Path, settings: Mapping[str, Any], *, resume: bool, overwrite: bool) -> None:
    """Makes `folder` ready for a run, or raises before any work is lost.

    settings: the run's recipe as plain data, compared with that of the run to resume. Raises OSError where the
    folder cannot be written, ValueError where it holds another run or somebody's files.
    """
    _check_writable(folder)
    if not (folder / RECIPE).is_file():
        _refuse_foreign_files(folder)
    elif overwrite and not resume:
        _clear(folder)
    elif not resume:
        state = "a finished run" if is_finished(folder) else "an unfinished run"
        raise ValueError(
            f"`output_dir` holds {state}: {folder}. Go on with `--resume`, replace it with `--overwrite`, "
            "or choose another folder."
        )
    else:
        _check_same_run(folder, settings)


def is_finished(folder: Path) -> bool:
    """Whether a run in `folder` came to its end: its metrics are written last."""
    return (folder / METRICS).is_file()


def check_space(folder: Path, trainable_parameters: int, checkpoints: int) -> None:
    """Raises OSError where the disk cannot hold the run's checkpoints and adapter.

    A checkpoint holds three float32 numbers per trained weight (itself and two moments of Adam); one more is
    on the disk while the oldest is replaced. 64 MB are left for logs, plots and the processor.
    """
    needed = trainable_parameters * 4 * (3 * (checkpoints + 1) + 1) + 64 * 10**6
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise OSError(
            f"`output_dir` has too little space: expected {needed / 1e6:.0f} MB free for {checkpoints + 1} "
            f"checkpoints and the adapter, got {free / 1e6:.0f} MB in {folder}. Free some or choose another disk."
        )


def read_json(path: Path) -> dict[str, Any]:
    """What `write_json` wrote; empty where there is no such file yet."""
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def write_json(path: Path, data: Any) -> None:
    """Writes a JSON file whole or not at all, whenever the process is killed."""
    write_whole(path, json.dumps(data, indent=2))


def write_lines(path: Path, rows: Iterable[Any]) -> None:
    """Writes JSON lines, whole or not at all."""
    write_whole(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def write_whole(path: Path, text: str) -> None:
    """Writes a file whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    with partial.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)


def _check_writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"moka")
    except OSError as error:
        raise OSError(f"`output_dir` cannot be written: {folder}: {error.strerror}. Choose another folder.") from error


def _refuse_foreign_files(folder: Path) -> None:
    torn = f"{RECIPE}.partial"  # of a run that ended before it began
    if files := sorted(path.name for path in folder.iterdir() if path.name != torn):
        raise ValueError(
            f"`output_dir` holds files of something else ({files[0]}, {len(files)} in all): {folder}. "
            "Choose a new or empty folder."
        )


def _clear(folder: Path) -> None:
    """Removes an earlier run; its recipe goes last, so that a torn removal still looks like a run."""
    for path in sorted(folder.iterdir(), key=lambda path: path.name == RECIPE):
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def _check_same_run(folder: Path, settings: Mapping[str, Any]) -> None:
    earlier = ALWAYS_SO | flatten(yaml.safe_load((folder / RECIPE).read_text(encoding="utf-8")))
    now = flatten(settings)
    keys = {key for key in earlier.keys() | now.keys() if not _is_without_effect(key)}
    changed = sorted(key for key in keys if earlier.get(key) != now.get(key))
    if changed:
        shown = ", ".join(f"{key}: {earlier.get(key)} -> {now.get(key)}" for key in changed)
        raise ValueError(
            f"`resume` needs the recipe the run began with, but it differs ({shown}). Undo the change, "
            "or start a new run in another folder."
        )


def _is_without_effect(key: str) -> bool:
    return any(key == name or key.startswith(f"{name}.") for name in WITHOUT_EFFECT)


def flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as `section.key` -> value, also in lists of sections, without those left at None."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, list) and any(isinstance(one, Mapping) for one in value):
            value = {str(place): one for place, one in enumerate(value)}
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        elif value is not None:
            flat[f"{prefix}{key}"] = value
    return flat
