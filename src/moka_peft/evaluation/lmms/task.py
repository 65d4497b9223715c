"""Our benchmarks as tasks of lmms-eval: the same questions, prompts, records and scores as ours."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from moka_peft.data.formats.parts import TAG
from moka_peft.data.samples import MEDIA
from moka_peft.evaluation import BENCHMARKS, Benchmark, Protocol, Question, Record, summarise
from moka_peft.training.folder import write_lines, write_whole

TEMPLATE = Path(__file__).with_name("task.yaml")
Doc = Mapping[str, Any]  # what lmms-eval reads from a line of the questions


def write_task(name: str, folder: Path, out: Path) -> Path:
    """Writes benchmark NAME, which lies in `folder`, as a task that lmms-eval finds in `out`: `moka_NAME`.

    The questions name their media by absolute paths. Gives the task's file. Raises ValueError or FileNotFoundError.
    """
    if name not in BENCHMARKS:
        raise ValueError(f"`name` is no benchmark: expected one of {', '.join(BENCHMARKS)}, got {name}.")
    benchmark = BENCHMARKS[name]
    docs = [_doc(name, benchmark, place, one) for place, one in enumerate(benchmark.questions(folder))]
    out.mkdir(parents=True, exist_ok=True)
    write_lines(out / f"{name}.jsonl", docs)
    told = {"name": name, "title": benchmark.title, "max_new_tokens": benchmark.max_new_tokens}
    write_whole(out / f"{name}.yaml", TEMPLATE.read_text(encoding="utf-8").format(**told))
    return out / f"{name}.yaml"


def _doc(name: str, benchmark: Benchmark, place: int, question: Question) -> dict[str, Any]:
    """A question as a line; `facts` are JSON, since lmms-eval wants the same columns of all lines."""
    media = {kind: list(getattr(question, f"{kind}s")) for kind in MEDIA}
    if any(not isinstance(medium, str) for paths in media.values() for medium in paths):
        raise ValueError(f"{question.where}: media lie inside the row: expected files. Use lmms-eval's own task.")
    told = {"id": question.id, "question": question.text, "reference": question.reference}
    asked = {"prompt": benchmark.prompt(question, benchmark.template), "facts": json.dumps(dict(question.facts))}
    return {"benchmark": name, "place": place, "where": question.where, **told, **asked, **media}


def is_ours(doc: Doc) -> bool:
    """Whether a document of a task is one of our questions."""
    return "benchmark" in doc and "prompt" in doc


def doc_to_messages(doc: Doc, lmms_eval_specific_kwargs: Any = None) -> list[dict[str, Any]]:
    """The prompt with its media where the tags stand, as models that take messages want it."""
    media, content = {f"<{kind}>": iter(doc[kind] or ()) for kind in MEDIA}, []
    for piece in TAG.split(doc["prompt"]):
        if piece in media:
            content.append({"type": piece[1:-1], "url": next(media[piece])})
        elif piece:
            content.append({"type": "text", "text": piece})
    return [{"role": "user", "content": content}]


def doc_to_visual(doc: Doc) -> list[str]:
    """The media's paths, for models that want them apart from the text; a video and its sound may be one file."""
    return list(dict.fromkeys(path for kind in MEDIA for path in doc[kind] or ()))


def doc_to_text(doc: Doc, lmms_eval_specific_kwargs: Any = None) -> str:
    """The prompt without tags, for models that want media apart from the text."""
    return TAG.sub("", doc["prompt"])


def process_results(doc: Doc, results: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The record of an answer, as `moka score` reads it, under each protocol's name."""
    told = {key: doc[key] for key in ("benchmark", "place", "where", "id", "question", "reference")}
    record = {**told, "prediction": results[0], **json.loads(doc["facts"])}
    return {"strict": record, "authors": record}


def score_strictly(records: Sequence[Mapping[str, Any]]) -> float | None:
    """The number that we report."""
    return _score(records, "strict")


def score_as_authors(records: Sequence[Mapping[str, Any]]) -> float | None:
    """The number as the method's authors count it; None where they would count nothing."""
    return _score(records, "authors")


def _score(records: Sequence[Mapping[str, Any]], protocol: Protocol) -> float | None:
    """Scores records of one benchmark in the order of its questions, in which several processes do not leave them."""
    ordered, name = sorted(records, key=lambda record: record["place"]), records[0]["benchmark"]
    return summarise(name, BENCHMARKS[name], [_record(one) for one in ordered], protocol).score


def _record(told: Mapping[str, Any]) -> Record:
    texts = [told[key] for key in ("id", "question", "reference", "prediction")]
    return Record(*texts, facts=told, where=told["where"])
