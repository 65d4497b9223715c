"""A benchmark's run: the same records however it went, none lost, none twice, none of other settings."""

import json
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from moka_peft.evaluation import PROTOCOLS
from moka_peft.evaluation import run as running
from moka_peft.evaluation.parts import Part, read_parts

from ..distributed.launch import Launch
from .asking import BATCHES, QUESTIONS, pope_task, run

RUN = "tests.evaluation.asking:run_process"


@pytest.fixture
def answered(monkeypatch) -> list[int]:
    """How many questions each batch had that the model was asked."""
    counts, answer = [], running.answer_batch

    def counted(*words):
        counts.append(len(words[2]["input_ids"]))
        return answer(*words)

    monkeypatch.setattr(running, "answer_batch", counted)
    return counts


def never_opened():
    raise AssertionError("the model was opened")


def interrupt(*_):
    raise KeyboardInterrupt


def lines(out: Path) -> bytes:
    return (out / "records.jsonl").read_bytes()


def test_records_and_summary(pope, whole):
    task = pope_task(pope)
    records = run(task, whole, never_opened)
    assert [record.id for record in records] == [question.id for question in task.questions]
    assert len({record.prediction for record in records}) > 3
    row = json.loads(lines(whole).splitlines()[1])
    assert list(row) == ["id", "question", "reference", "prediction", "parsed", "right", "split"]
    assert (row["reference"], row["split"], row["right"]) == ("yes", "random", {"strict": 0.0, "authors": 0.0})
    summary = json.loads((whole / "summary.json").read_text())
    assert (summary["benchmark"], summary["target"], summary["records"]) == ("pope", "tiny", QUESTIONS)
    assert [summary[protocol]["protocol"] for protocol in PROTOCOLS] == [*PROTOCOLS]
    assert summary["strict"]["partial_because"] == "11 of 2,910 records of random"
    assert summary["settings"]["prompt"] == task.template and summary["records_per_second"] > 0
    assert sorted(path.name for path in whole.iterdir()) == ["records.jsonl", "settings.json", "summary.json"]


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_goes_on_where_a_bad_medium_ended_it(pope, whole, tmp_path, answered, workers):
    folder = shutil.copytree(pope, tmp_path / "pope")
    (folder / "val2014/5.png").write_text("no picture")
    with pytest.raises(ValueError, match=r"coco_pope_random.json, row 6, .*5\.png` cannot be read"):
        run(pope_task(folder), tmp_path / "out", workers=workers)
    assert answered == [2, 2] and not (tmp_path / "out/records.jsonl").exists()
    with (tmp_path / "out/parts/part-0.jsonl").open("a") as part:
        part.write('{"batch": 3, "predictions": {"random-4"')  # as a killed process leaves it
    shutil.copy(pope / "val2014/5.png", folder / "val2014/5.png")
    run(pope_task(folder), tmp_path / "out", workers=workers)
    assert len(answered) == BATCHES and lines(tmp_path / "out") == lines(whole)


def test_media_loaded_ahead_are_the_same(pope, whole, tmp_path):
    run(pope_task(pope), tmp_path / "out", workers=1)
    assert lines(tmp_path / "out") == lines(whole) and not (tmp_path / "out/parts").exists()


def test_killed_in_the_middle_it_goes_on_to_the_same_records(pope, whole, tmp_path, processes):
    settings = {"folder": str(pope), "out": str(tmp_path / "out")}
    killed = Launch(processes, tmp_path / "killed", RUN, {**settings, "dies_in": {0: 3}}, 1)
    assert killed.wait() == [-signal.SIGKILL]
    [told] = Launch(processes, tmp_path / "again", RUN, settings, 1).results()
    assert told == [3, 4, 5] and lines(tmp_path / "out") == lines(whole)


def test_two_processes_give_the_records_of_one(pope, whole, tmp_path, processes):
    settings = {"folder": str(pope), "out": str(tmp_path / "out")}
    killed = Launch(processes, tmp_path / "killed", RUN, {**settings, "dies_in": {1: 1}}, 2)
    assert killed.wait()[1] == -signal.SIGKILL  # the launcher ends the other one
    assert {one.batch for one in read_parts(tmp_path / "out/parts")} <= {0, 1, 2, 4}  # each process has its own
    told = Launch(processes, tmp_path / "again", RUN, settings, 2).results()
    kept = BATCHES - len(told[0]) - len(told[1])
    assert kept >= 1 and abs(len(told[0]) - len(told[1])) <= 1 and not set(told[0]) & set(told[1])
    assert lines(tmp_path / "out") == lines(whole)


def test_a_disk_that_fills_within_a_line_ends_the_run(pope, whole, tmp_path):
    part, limits = tmp_path / "out/parts/part-0.jsonl", resource.getrlimit(resource.RLIMIT_FSIZE)

    class Filling(Part):
        def append(self, answered):
            if answered.batch == 2:
                resource.setrlimit(resource.RLIMIT_FSIZE, (part.stat().st_size + 20, limits[1]))
            super().append(answered)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(OSError, match=r"`out` took 20 of .*/part-0.jsonl. Make"):
        patch.setattr(running, "Part", Filling)
        try:
            run(pope_task(pope), tmp_path / "out")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    run(pope_task(pope), tmp_path / "out")
    assert lines(tmp_path / "out") == lines(whole)


def test_a_line_that_is_not_the_last_must_be_whole(pope, tmp_path):
    with pytest.raises(AssertionError):
        run(pope_task(pope), tmp_path, never_opened)
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts/part-0.jsonl").write_text('{"batch": 0\n{"batch": 1\n')
    with pytest.raises(ValueError, match="part-0.jsonl, line 1: no answered batch: .* Remove the line"):
        run(pope_task(pope), tmp_path, never_opened)


@pytest.mark.parametrize(
    ("changes", "weights", "told"),
    [
        ({"batch_size": 3}, "a", "batch_size: 2 -> 3"),
        ({"template": "<image>{question}"}, "a", "prompt: <image>.*"),
        ({"max_new_tokens": 5}, "a", "max_new_tokens: 4 -> 5"),
        ({"limit": 5}, "a", "limit: None -> 5"),
        ({}, "b", "model.adapter_sha256: a -> b"),
    ],
)
def test_records_of_other_settings_are_not_mixed(pope, whole, changes, weights, told):
    before = lines(whole)
    with pytest.raises(ValueError, match=rf"(?s)`out` holds records of other settings \({told}\).*--overwrite"):
        run(pope_task(pope, **changes), whole, never_opened, weights)
    assert lines(whole) == before


@pytest.mark.parametrize(("before", "after"), [("red bus", "red car"), ("0.png", "1.png"), ('"yes"', '"no"')])
def test_other_questions_under_the_same_ids_are_other_settings(pope, whole, tmp_path, before, after):
    folder = shutil.copytree(pope, tmp_path / "pope")
    assert len(run(pope_task(folder), whole, never_opened)) == QUESTIONS  # the same ones in another folder
    text = (folder / "coco_pope_random.json").read_text()
    (folder / "coco_pope_random.json").write_text(text.replace(before, after, 1))
    with pytest.raises(ValueError, match="questions_sha256"):
        run(pope_task(folder), whole, never_opened)


def test_a_run_goes_on_with_the_versions_it_began_with(pope, whole, tmp_path, monkeypatch):
    monkeypatch.setattr(running, "versions", lambda: {"torch": "0.4"})
    assert len(run(pope_task(pope), whole, never_opened)) == QUESTIONS  # finished: nothing is added
    shutil.copytree(whole, tmp_path / "out")
    (tmp_path / "out/summary.json").unlink()
    with pytest.raises(ValueError, match=r"versions.torch: .* -> 0.4"):
        run(pope_task(pope), tmp_path / "out", never_opened)


@pytest.mark.parametrize("is_finished", [True, False])
def test_a_limit_is_partial_and_can_be_raised(pope, whole, tmp_path, answered, monkeypatch, is_finished):
    if is_finished:
        records = run(pope_task(pope, limit=5), tmp_path / "out")
        summary = json.loads((tmp_path / "out/summary.json").read_text())
        assert len(records) == 5 and summary["authors"]["partial_because"] == "the first 5 of 11 questions"
    else:
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr("moka_peft.evaluation.run_folder.write_lines", interrupt)
            run(pope_task(pope, limit=5), tmp_path / "out")
    assert answered == [2, 2, 1]
    run(pope_task(pope), tmp_path / "out")
    assert answered[3:] == [2, 2, 2, 1]  # the batch that the limit cut is answered as a whole
    assert lines(tmp_path / "out") == lines(whole)


def test_overwrite_begins_anew_and_removes_nothing_else(pope, whole, tmp_path, answered, monkeypatch):
    out = tmp_path / "out"
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("moka_peft.evaluation.run_folder.write_lines", interrupt)
        run(pope_task(pope, limit=2), out)
    (out / "notes.txt").write_text("mine")
    run(pope_task(pope), out, weights="b", overwrite=True)
    assert len(answered) == 1 + BATCHES and lines(out) == lines(whole) and (out / "notes.txt").exists()


def test_two_runs_do_not_share_a_folder(pope, whole, tmp_path):
    hold = "import fcntl, sys; f = open(sys.argv[1], 'w'); fcntl.lockf(f, fcntl.LOCK_EX); print('held', flush=True); "
    command = [sys.executable, "-S", "-c", f"{hold} sys.stdin.read()", str(tmp_path / "lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout and other.stdout.readline() == "held\n"
        with pytest.raises(OSError, match=r"`out` is in use: another `moka eval` runs in .*--out"):
            run(pope_task(pope), tmp_path, never_opened)
        other.kill()
    assert [path.name for path in tmp_path.iterdir()] == ["lock"]
    run(pope_task(pope), tmp_path)
    assert lines(tmp_path) == lines(whole) and not (tmp_path / "lock").exists()


def test_a_folder_of_something_else_is_left_alone(pope, tmp_path):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(ValueError, match=r"files of something else \(thesis.tex, 1 in all\)"):
        run(pope_task(pope), tmp_path, never_opened)


def test_a_sharded_model_is_refused(pope, tmp_path, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(ValueError, match="expected no FSDP and no ZeRO-3"):
        run(pope_task(pope), tmp_path, never_opened)


def test_a_task_that_cannot_be_asked(pope):
    with pytest.raises(ValueError, match="`prompt` of pope names 'choices'"):
        pope_task(pope, template="<image>{question}{choices}").check()
    with pytest.raises(ValueError, match="row 1, "):
        pope_task(pope, template="{question}").check()
