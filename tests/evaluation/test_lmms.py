"""lmms-eval's messages as samples, our benchmarks as its tasks, and, where it is installed, its runs of our models."""

import json
import subprocess
import sys
import tomllib
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from moka_peft.cli import call
from moka_peft.data import Collator, Sample
from moka_peft.data.generated import write_generated
from moka_peft.evaluation import BENCHMARKS, PROTOCOLS, Record, ask, summarise
from moka_peft.evaluation.lmms import task
from moka_peft.evaluation.lmms.__main__ import write
from moka_peft.evaluation.lmms.conversation import message_of, sample_of
from moka_peft.evaluation.lmms.settings import read_settings
from moka_peft.training import generate_answers, load_adapted
from moka_peft.training.reading import media_of

from .records import write_records

ROOT = Path(__file__).parents[2]
NAMES = ("music_avqa", "ave")
GREY = Image.new("RGB", (4, 2), "grey")
needs_harness = pytest.mark.skipif(find_spec("lmms_eval") is None, reason="no lmms-eval: docs/lmms_eval.md installs it")


def parts_of(*content: Any) -> list[Any]:
    return sample_of("?", [{"role": "user", "content": list(content)}]).messages[0]["content"]


class Decoder:
    """As torchcodec's, which `datasets` gives."""

    def get_all_samples(self) -> Any:
        return SimpleNamespace(data=torch.ones(2, 3), sample_rate=8000)


@pytest.mark.parametrize(
    ("medium", "kind", "loaded", "rate"),
    [
        (GREY, "image", GREY, None),
        ("a.JPG", "image", "a.JPG", None),
        ("a.mp4", "video", "a.mp4", None),
        ("a.flac", "audio", "a.flac", None),
        ({"type": "audio", "url": "a.mp4"}, "audio", "a.mp4", None),
        ({"path": "a.webm"}, "video", "a.webm", None),
        ([GREY, GREY], "video", np.full((2, 2, 4, 3), 128, np.uint8), None),
        ({"array": [0.5, 1], "sampling_rate": 16000}, "audio", np.array([0.5, 1]), 16000),
        (Decoder(), "audio", np.ones((2, 3)), 8000),
    ],
)
def test_media_of_a_simple_task(medium, kind, loaded, rate):
    part, text = parts_of(*message_of("Why?", [medium])["content"])
    assert part["type"] == kind and part.get("sample_rate_hz") == rate
    assert type(part[kind]) is type(loaded) and np.array_equal(part[kind], loaded)
    assert text == {"type": "text", "text": "Why?"}


def test_a_recording_that_messages_call_a_video():
    [part] = parts_of({"type": "video", "url": {"array": np.ones(3), "sampling_rate": 16000}})
    assert part["type"] == "audio" and part["sample_rate_hz"] == 16000


@pytest.mark.parametrize(
    ("text", "media", "expected"),
    [
        ("<image>, then <image>?", "12", ["1", ", then ", "2", "?"]),
        ("Why?", "12", ["1", "2", "Why?"]),
        ("<image> or <image>?", "1", ["1", "<image> or <image>?"]),
        ("<video>?", "1", ["1", "<video>?"]),
    ],
)
def test_media_go_to_their_tags(text, media, expected):
    content = [*({"type": "image", "url": name} for name in media), {"type": "text", "text": text}]
    assert [part[part["type"]] for part in parts_of(*content)] == expected


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ({"type": "video", "url": {"url": "a.mp4", "video_start": 1, "video_end": 2}}, "video is to be cut"),
        ({"type": "video", "url": "a.mp4", "start_time": 0.0}, "video is to be cut"),
        ({"type": "table", "url": "a.csv"}, "expected text, image, video or audio"),
        ({"type": "image", "url": None}, "expected text, image, video or audio"),
    ],
)
def test_parts_that_are_refused(part, message):
    with pytest.raises(ValueError, match=message):
        parts_of(part)


@pytest.mark.parametrize(
    ("wanted", "longest", "answer"),
    [
        ({"max_new_tokens": 16, "until": ["Q:", "\n\n"]}, 16, "One.\n\nTwo."),
        ({"until": "Q: n", "do_sample": True, "temperature": 0}, 5, "One.\n\nTwo. Q: why?"),
        ({"until": None, "temperature": 0.7, "do_sample": False, "num_beams": None}, 5, "One.\n\nTwo. Q: why?"),
        ({"until": [""], "temperature": None, "max_new_tokens": None}, 5, "One.\n\nTwo. Q: why?"),
    ],
)
def test_settings(wanted, longest, answer):
    settings = read_settings(wanted, "pope", 5)
    assert settings.max_new_tokens == longest and settings.cut("One.\n\nTwo. Q: why?") == answer


@pytest.mark.parametrize("wanted", [{"do_sample": True}, {"temperature": 0.2}, {"num_beams": 3}])
def test_what_is_not_greedy_is_refused(wanted):
    with pytest.raises(ValueError, match=r"`generation_kwargs` of pope: expected greedy .* Add `--gen_kwargs"):
        read_settings(wanted, "pope", 5)


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both benchmarks, made up, as tasks; the datasets lie beside them."""
    folder = tmp_path_factory.mktemp("lmms")
    for name in NAMES:
        write_generated(name, folder / name, samples=6, split="test")
        write(name, folder / name, folder / "tasks")
    return folder / "tasks"


def docs_of(tasks: Path, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (tasks / f"{name}.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("name", NAMES)
def test_a_task_asks_what_we_ask(tasks, name):
    benchmark, docs = BENCHMARKS[name], docs_of(tasks, name)
    questions = benchmark.questions(tasks.parent / name)
    for question, doc in zip(questions, docs, strict=True):
        ours = ask(question, benchmark.prompt(question, benchmark.template))
        assert sample_of(question.id, task.doc_to_messages(doc)).messages[:-1] == ours.messages[:-1]
        assert task.is_ours(doc) and task.doc_to_visual(doc) == [*dict.fromkeys(question.videos + question.audios)]
        assert "<" not in task.doc_to_text(doc) and question.text in task.doc_to_text(doc)


@pytest.mark.parametrize("name", NAMES)
def test_a_task_scores_as_we_score(tasks, name):
    docs = docs_of(tasks, name)
    right = {"music_avqa": "<answer>{}</answer>", "ave": "<event>{}</event><range>0,4</range>"}[name]
    told = [doc["reference"].removeprefix("event:").split(" start")[0] for doc in docs]
    answers = [right.format(word) for word in told[:3]] + [right.format("zero"), "none", right.format(told[5])]
    results = [task.process_results(doc, [answer]) for doc, answer in zip(docs, answers, strict=True)]
    records = [
        Record(d["id"], d["question"], d["reference"], answer, json.loads(d["facts"]), d["where"])
        for d, answer in zip(docs, answers, strict=True)
    ]
    for protocol, score in (("strict", task.score_strictly), ("authors", task.score_as_authors)):
        expected = summarise(name, BENCHMARKS[name], records, protocol).score
        assert score([result[protocol] for result in reversed(results)]) == expected
        assert 0 < expected < 100


def test_records_keep_the_order_of_the_questions(tasks, monkeypatch):
    results, seen = [task.process_results(doc, [""])["strict"] for doc in docs_of(tasks, "ave")], []
    monkeypatch.setattr(task, "summarise", lambda _, __, records, ___: seen.extend(records) or SimpleNamespace(score=0))
    task.score_strictly(results[::2] + results[1::2])  # as two processes leave them
    assert [record.id for record in seen] == [result["id"] for result in results]


def test_what_is_no_task(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="`name` is no benchmark: expected one of music_avqa, .* got mmvet"):
        task.write_task("mmvet", tmp_path, tmp_path)
    with pytest.raises(SystemExit, match="moka: the annotation file of `ave` not found"):
        write("ave", tmp_path, tmp_path)
    inside = SimpleNamespace(id="1", text="", reference="", images=(b"jpeg",), videos=(), audios=(), where="a, row 1")
    benchmark = SimpleNamespace(questions=lambda folder: [inside])
    monkeypatch.setitem(BENCHMARKS, "inside", benchmark)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="a, row 1: media lie inside the row"):
        task.write_task("inside", tmp_path, tmp_path)


def test_the_entry_point_is_there():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    module, _, name = project["entry-points"]["lmms_eval.models"]["moka"].partition(":")
    assert callable(getattr(import_module(module), name))


RECIPE = """\
model: {{name: tiny-avt}}
data: {{train: {{name: av_digits, size: 4}}, media: {{video_frames: 3}}}}
adapter: {{r: 2}}
training: {{steps: 2, batch_size: 2, num_threads: 1}}
output_dir: {folder}/run
"""
POPE = """\
include: {pope}
task: made_up_pope
dataset_path: parquet
dataset_kwargs: {{data_files: {{test: pope.parquet}}}}
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of a tiny model."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "recipe.yaml").write_text(RECIPE.format(folder=folder))
    assert call(["train", str(folder / "recipe.yaml")]) == 0
    return folder / "run"


LAUNCH = (
    "-m accelerate.commands.launch --cpu --num_processes 2 --num_machines 1 --mixed_precision no --dynamo_backend no"
)


def evaluate(run: Path, tasks: Path, names: str, out: Path, options: str = "", launch: str = "") -> dict[str, Any]:
    """What lmms-eval logs of each task, in the order of the documents, with its numbers under `results`."""
    command = [*launch.split(), "-m", "lmms_eval", "--model", "moka", "--model_args", f"pretrained={run}"]
    command += ["--include_path", str(tasks), "--tasks", names, "--limit", "4", "--batch_size", "2", *options.split()]
    command += ["--gen_kwargs", "max_new_tokens=8", "--log_samples", "--output_path", str(out)]
    ended = subprocess.run([sys.executable, *command], capture_output=True, text=True, timeout=280)
    files = {path.stem.partition("_samples_")[2]: path for path in out.rglob("*_samples_*.jsonl")}
    assert set(files) == set(names.split(",")), ended.stdout[-3000:] + ended.stderr[-3000:]
    logged = {name: [json.loads(line) for line in path.read_text().splitlines()] for name, path in files.items()}
    [results] = out.rglob("*_results.json")
    ordered = {name: sorted(rows, key=lambda row: row["doc_id"]) for name, rows in logged.items()}
    return {**ordered, "results": json.loads(results.read_text())["results"]}


def answers_of(run: Path, samples: list[Sample]) -> list[str]:
    model, processor = load_adapted(run)
    collate = Collator(processor, media=media_of(run)).collate_prompts
    return generate_answers(model, processor, collate, samples, batch_size=2, max_new_tokens=8)


@needs_harness
@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "launch"), [("", ""), ("--force_simple", ""), ("", LAUNCH)], ids=["messages", "simple", "two processes"]
)
def test_lmms_eval_gets_our_answers_and_our_numbers(run, tasks, tmp_path, monkeypatch, capsys, options, launch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    logged = evaluate(run, tasks, "moka_music_avqa,moka_ave", tmp_path, options, launch)
    for name in NAMES:
        benchmark = BENCHMARKS[name]
        questions = benchmark.questions(tasks.parent / name)[:4]
        answers = answers_of(run, [ask(q, benchmark.prompt(q, benchmark.template)) for q in questions])
        assert [row["strict"]["prediction"] for row in logged[f"moka_{name}"]] == answers and any(answers)
        path = write_records(tmp_path, [row["strict"] for row in logged[f"moka_{name}"]], f"{name}.jsonl")
        for protocol in PROTOCOLS:
            assert call(["score", name, str(path), "--protocol", protocol, "--json"]) == 0
            number = json.loads(capsys.readouterr().out)["score"]
            assert logged["results"][f"moka_{name}"][f"{protocol},none"] == number


@needs_harness
@pytest.mark.slow
@pytest.mark.parametrize("options", ["", "--force_simple"], ids=["messages", "simple"])
def test_a_task_of_lmms_eval_itself(run, tmp_path, monkeypatch, options):
    """Its POPE, with its functions, over two pictures of ours."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets, [place] = pytest.importorskip("datasets"), find_spec("lmms_eval").submodule_search_locations
    pictures = [Image.new("RGB", (64, 48), colour) for colour in ("red", "blue")]
    rows = {"question_id": ["1", "2"], "question": ["Is it red?", "Is it round?"], "answer": ["yes", "no"]}
    found = datasets.Dataset.from_dict({**rows, "image": pictures}).cast_column("image", datasets.Image())
    found.to_parquet(tmp_path / "pope.parquet")
    (tmp_path / "pope.yaml").write_text(POPE.format(pope=Path(place) / "tasks" / "pope" / "pope.yaml"))
    logged = evaluate(run, tmp_path, "made_up_pope", tmp_path / "out", options)
    after = "\nAnswer the question using a single word or phrase."
    messages = [message_of(text + after, [one]) for text, one in zip(rows["question"], pictures, strict=True)]
    answers = answers_of(run, [sample_of("?", [message]) for message in messages])
    assert [row["filtered_resps"] for row in logged["made_up_pope"]] == answers
    assert logged["results"]["made_up_pope"]["pope_yes_ratio,none"] == 0.5
