"""The folder of a benchmark's run: whose records it holds, whether they are all there, and how they come together."""

import fcntl
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from moka_peft.evaluation.parts import Answered, Part, read_parts
from moka_peft.evaluation.record import PROTOCOLS, Protocol, Record, read_records
from moka_peft.evaluation.summary import Summary, summarise
from moka_peft.evaluation.task import Task
from moka_peft.training.folder import flatten, read_json, write_json, write_lines

SETTINGS = "settings.json"
RECORDS = "records.jsonl"
SUMMARY = "summary.json"
PARTS = "parts"
LOCK = "lock"
NOTES = {"target", "num_threads"}  # of a run, that another one with the same records may differ in


@contextmanager
def alone(out: Path) -> Iterator[None]:
    """Makes a folder and keeps other runs out of it; the lock ends with this process, however that ends.

    Raises OSError where there can be no such folder, or another run is at work in it.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(
            f"`out` cannot be written: {out}: {error.strerror}. Choose another folder with `--out`."
        ) from error
    if not os.access(out, os.W_OK):  # a finished run can be read there
        yield
        return
    with (out / LOCK).open("w") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # `flock` would stay with the workers of a killed process
        except (BlockingIOError, PermissionError) as error:
            raise OSError(
                f"`out` is in use: another `moka eval` runs in {out}. Wait for its end, or choose another folder with "
                "`--out`."
            ) from error
        except OSError:
            pass  # a file system without locks
        try:
            yield
        finally:
            (out / LOCK).unlink(missing_ok=True)


def claim(out: Path, task: Task, settings: Mapping[str, Any], *, overwrite: bool) -> bool:
    """Makes a folder that of a run; whether the run in it is finished.

    settings: what decides the records. An earlier run's answers stay; a finished one may go on to a higher limit.
    Raises ValueError where the folder holds a run of other settings, or somebody's files.
    """
    earlier = read_json(out / SETTINGS)
    if not earlier:
        _refuse_foreign_files(out)
    elif overwrite:
        clear(out)
    if not earlier or overwrite:
        write_json(out / SETTINGS, dict(settings))
        return False
    goes_on = _goes_on(earlier["limit"], settings["limit"])
    is_finished = (out / SUMMARY).is_file() and not goes_on
    _check_same(out, earlier, settings, is_finished=is_finished, goes_on=goes_on)
    if goes_on:
        _reopen(out, task)
        write_json(out / SETTINGS, {**settings, "num_threads": earlier["num_threads"]})
    if is_finished:
        shutil.rmtree(out / PARTS, ignore_errors=True)  # where the run was killed in its last moment
    return is_finished


def _goes_on(earlier: int | None, now: int | None) -> bool:
    return earlier is not None and (now is None or now > earlier)


def _check_same(
    out: Path, earlier: Mapping[str, Any], settings: Mapping[str, Any], *, is_finished: bool, goes_on: bool
) -> None:
    before, now = flatten(earlier), flatten(settings)
    keys = (before.keys() | now.keys()) - NOTES - ({"limit"} if goes_on else set())
    if is_finished:
        keys = {key for key in keys if not key.startswith("versions.")}
    if changed := sorted(key for key in keys if before.get(key) != now.get(key)):
        shown = ", ".join(f"{key}: {before.get(key)} -> {now.get(key)}" for key in changed)
        raise ValueError(
            f"`out` holds records of other settings ({shown}): {out}. Undo the change, replace them with "
            "`--overwrite`, or choose another folder with `--out`."
        )


def _refuse_foreign_files(out: Path) -> None:
    ours = {LOCK, f"{SETTINGS}.partial"}
    if files := sorted(path.name for path in out.iterdir() if path.name not in ours):
        raise ValueError(
            f"`out` holds files of something else ({files[0]}, {len(files)} in all): {out}. Choose another."
        )


def clear(out: Path) -> None:
    """Removes a run, and nothing else; its settings go last, so that a torn removal still looks like a run."""
    for name in (SUMMARY, RECORDS):
        (out / name).unlink(missing_ok=True)
    shutil.rmtree(out / PARTS, ignore_errors=True)
    (out / SETTINGS).unlink(missing_ok=True)


def _reopen(out: Path, task: Task) -> None:
    """Makes answered batches of a finished run's records again; one that the limit cut is answered anew."""
    summary = read_json(out / SUMMARY)
    if not summary:
        return
    said = {record.id: record.prediction for record in read_records(out / RECORDS, {})}
    whole = [
        (number, {question.id: said[question.id] for question in batch})
        for number, batch in enumerate(task.batches)
        if all(question.id in said for question in batch)
    ]
    shutil.rmtree(out / PARTS, ignore_errors=True)
    with Part(out / PARTS / "earlier.jsonl") as part:
        for number, predictions in whole:
            part.append(Answered(number, predictions, summary["seconds"] / len(whole)))
    (out / SUMMARY).unlink()


def answered(out: Path, task: Task) -> dict[int, Answered]:
    """The task's batches that are done; one that an earlier limit cut is not."""
    names = [[question.id for question in batch] for batch in task.batches]
    return {
        one.batch: one
        for one in read_parts(out / PARTS)
        if one.batch < len(names) and list(one.predictions) == names[one.batch]
    }


def finish(out: Path, task: Task) -> None:
    """Puts the answers together: records.jsonl, then summary.json as the sign that all is there."""
    done = answered(out, task)
    if missing := len(task.batches) - len(done):
        raise RuntimeError(f"{missing} of {len(task.batches)} batches have no answers in {out}. Repeat the command.")
    said = {name: text for one in done.values() for name, text in one.predictions.items()}
    write_lines(out / RECORDS, [task.row(question, said[question.id]) for question in task.asked])
    seconds = sum(one.seconds / one.processes for one in done.values())
    settings, summaries = read_json(out / SETTINGS), summaries_of(records_of(out, task), task)
    results = {
        "benchmark": task.name,
        "target": settings["target"],
        "settings": settings,
        **{protocol: summary.as_json() for protocol, summary in summaries.items()},
        "records": len(task.asked),
        "seconds": round(seconds, 3),
        "records_per_second": round(len(task.asked) / max(seconds, 1e-9), 3),
    }
    write_json(out / SUMMARY, results)
    shutil.rmtree(out / PARTS, ignore_errors=True)


def records_of(out: Path, task: Task) -> list[Record]:
    """The records of a finished run."""
    return read_records(out / RECORDS, task.benchmark.needs)


def summaries_of(records: list[Record], task: Task) -> dict[Protocol, Summary]:
    """What the records come to, by protocol."""
    return {one: summarise(task.name, task.benchmark, records, one, task.partial) for one in PROTOCOLS}
