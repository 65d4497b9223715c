"""AVE: PAPER's rules for events and ranges, the score of the method's authors, and the published files."""

import json
from pathlib import Path

import numpy as np
import pytest

from moka_peft.data import load_samples
from moka_peft.data.generated import write_generated
from moka_peft.evaluation import BENCHMARKS, Record, ask, ave, summarise
from moka_peft.evaluation.ave_events import EVENTS, NAMES
from moka_peft.training.metrics import wilson_interval

from .records import judge, scored, write_records

ANNOTATIONS = Path(__file__).parents[3] / "shared" / "data" / "annotations" / "ave_Annotations.txt"
BARK = "event:Bark start_time:0 end_time:3</s>"  # seconds 0, 1, 2, 3
THEIRS = (
    "<s> A dog barks. So the audible and visible event in the video is <event> {} </event>, and the time range is "
    "<range> {} </range>.</s><unk><unk>"
)


@pytest.mark.parametrize(
    ("prediction", "event", "ranges", "right"),
    [
        (THEIRS.format("Bark", "0,3"), "bark", [[0, 3]], 1.0),
        ("<event>BARK</event><range>0,4</range>", "bark", [[0, 4]], 0.9),
        ("<range>0,3</range><event>bark</event>", "bark", [[0, 3]], 1.0),
        ("<event>Bark</event><range>0,0</range> <range>2,3</range>", "bark", [[0, 0], [2, 3]], 0.9),
        ("<event>Bark</event><range>2,3</range><range>0,2</range>", "bark", [[2, 3], [0, 2]], 1.0),
        ("<event>Bark</event><range>2,7</range>", "bark", [[2, 7]], 0.4),
        ("<event>Bark</event><range>3,0</range>", "bark", [[3, 0]], 0.6),  # covers nothing
        ("<event>Bark</event><range>-2,1</range>", "bark", [[-2, 1]], 0.8),
        ("<event>Bark</event><range>1,99</range>", "bark", [[1, 99]], 0.3),
        ("<event>Bark</event><range>10,12</range>", "bark", [[10, 12]], 0.6),
        ("<event>Bark</event><range>0,1,2</range><range>0,3</range>", "bark", [[0, 3]], 1.0),
        ("<event>Bark</event><range>0</range><range>0.5,3</range><range>0 , 3</range>", "bark", [[0, 3]], 1.0),
        ("<event>Bark</event><range>\n0,9</range> <range>0,3</range>", "bark", [[0, 3]], 1.0),
        ("<event>Cat</event><range>0,3</range>", "cat", [[0, 3]], 0.6),
        ("<event>Cat</event><range>5,9</range>", "cat", [[5, 9]], 0.1),
        ("<event>none</event><range>0,9</range>", "none", [[0, 9]], 0.6),  # background
        ("<event>Frying (food)</event><range>0,3</range>", "frying (food)", [[0, 3]], 0.6),
    ],
)
def test_events_and_ranges(prediction, event, ranges, right):
    for protocol in ("strict", "authors"):
        judged = judge("ave", prediction, BARK, protocol)
        assert judged.parsed == {"event": event, "ranges": ranges}
        assert judged.right == pytest.approx(right)


@pytest.mark.parametrize(
    "prediction",
    [
        "",
        "A dog barks from 0 to 3.",
        "<event>Bark</event> from 0 to 3",
        "<event>Bark</event><range>none</range><range>0-3</range><range>0.0,3.0</range>",
        "<event>Bark</event><event>Bark</event><range>0,3</range>",
        "<event>\nBark</event><range>0,3</range>",
        "<event>Dog</event><range>0,3</range>",
        "<event></event><range>0,3</range>",
        "<event>Dog, (0 3)</event><range>0,3</range>",
        "<event>(0 3)</event>",
        "<event>Bark (0,3)</event>",
        "<event>Bark (0 3</event>",
        "<event>Bark , (0 3)</event>",  # a space is left before the comma
        f"<event>Bark (0 {'3' * 5000})</event>",  # more digits than Python makes an integer of
    ],
)
def test_unparseable(prediction):
    strict, authors = (judge("ave", prediction, BARK, protocol) for protocol in ("strict", "authors"))
    assert (strict.parsed, strict.right, authors.parsed, authors.right) == (None, 0.0, None, None)


@pytest.mark.parametrize(
    ("named", "event", "ranges", "right"),
    [
        ("Bark, (0 3)", "bark", [[0, 3]], 1.0),
        ("BARK ( 0  1 ) and then (3 3), more", "bark", [[0, 1], [3, 3]], 0.9),
        ("Frying (food), (5 9)", "frying (food)", [[5, 9]], 0.1),
        ("none (0 9)", "none", [[0, 9]], 0.6),
    ],
)
def test_authors_look_for_ranges_in_the_event(named, event, ranges, right):
    prediction = f"<event>{named}</event><range>7,8</range>"  # those beside it do not count then
    strict, authors = (judge("ave", prediction, BARK, protocol) for protocol in ("strict", "authors"))
    assert (strict.parsed, strict.right) == (None, 0.0)
    assert (authors.parsed, authors.right) == ({"event": event, "ranges": ranges}, pytest.approx(right))


@pytest.mark.parametrize(
    ("reference", "right"),
    [
        ("event:Bark start_time:0 end_time:3", 1.0),
        ("event: BARK start_time:0 end_time:3 </s>", 1.0),
        ("event:Bark start_time:0 end_time:10</s>", 0.4),
        ("event:Male speech, man speaking start_time:0 end_time:3", 0.6),
        ("event:none start_time:0 end_time:3", 0.6),
        ("event:Dog start_time:0 end_time:3", None),
        ("Bark start_time:0 end_time:3", None),
        ("event:Bark start_time:0", None),
        ("event:Bark start_time:zero end_time:3", None),
        ("event:Bark start_time:0 end_time:3.5", None),
        ("", None),
    ],
)
def test_references(tmp_path, reference, right):
    path = write_records(tmp_path, [{"output": reference, "predict": THEIRS.format("Bark", "0,3")}])
    if right is not None:
        assert scored("ave", path, "authors").score == pytest.approx(100 * right)
        return
    with pytest.raises(ValueError, match=f"{path}, line 1, `output`: expected `event:NAME start_time:SECOND"):
        scored("ave", path, "authors")


def test_a_file_of_the_authors(tmp_path):
    said = [
        THEIRS.format("Bark", "0,3"),
        THEIRS.format("Bark", "0,8"),
        "<event>Bark, (0 1)</event>",
        "A dog barks.</s>",
    ]
    church = {
        "output": "event:Church bell start_time:0 end_time:10</s>",
        "predict": THEIRS.format("Church bell", "5,10"),
    }
    rows = [{"output": BARK, "predict": text, "video_path": "a.mp4"} for text in said] + [church]
    path = write_records(tmp_path, rows, "inference_ave.jsonl")
    strict, authors = (scored("ave", path, protocol) for protocol in ("strict", "authors"))

    assert (strict.score, strict.unparseable, strict.dropped) == (pytest.approx(40.0), 2, 0)  # 10 + 5 + 0 + 0 + 5
    assert strict.details == {"slots": 50, "slots_right": 20, "slots_dropped_counted_right": 0}
    assert strict.interval == pytest.approx([100 * end for end in wilson_interval(2, 5)])
    assert {name: (share.records, share.score) for name, share in strict.groups.items()} == {
        "bark": (4, pytest.approx(37.5)),
        "church bell": (1, pytest.approx(50.0)),
    }
    assert (authors.score, authors.unparseable, authors.dropped) == (pytest.approx(76.0), 1, 1)  # 10 + 5 + 8 + 10 + 5
    assert authors.details == {"slots": 50, "slots_right": 38, "slots_dropped_counted_right": 10}
    assert authors.groups["bark"].score == pytest.approx(82.5)
    assert authors.partial == "5 of 402 records"


def test_authors_score_is_that_of_an_array_filled_from_the_front():
    rng = np.random.default_rng(0)
    names = [*NAMES[:4], *NAMES[:4], *NAMES]  # some are met often
    for rows in (1, 7, 60):
        records, right, given, row = [], np.zeros((rows, 10)), np.zeros((rows, 10)), 0
        for index in range(rows):
            event, other = (names[place] for place in rng.integers(len(names), size=2))
            start, end, *ends = (int(second) for second in rng.integers(-1, 12, size=6))
            reference = f"event:{event.title()} start_time:{start} end_time:{end}</s>"
            texts = ["nothing", f"<event>{other}</event>" * 2, THEIRS.format(other, f"{ends[0]},{ends[1]}")]
            kind = int(rng.integers(3)) if index else 0  # one at least is dropped
            records.append(Record("", "", reference, texts[kind] + f"<range>{ends[2]},{ends[3]}</range>" * (kind == 2)))
            if kind == 2:
                right[row, max(start, 0) : max(end + 1, 0)] = NAMES.index(event)
                for first, last in (ends[:2], ends[2:]):
                    given[row, max(first, 0) : max(last + 1, 0)] = NAMES.index(other)
                row += 1
        result = summarise("ave", ave.BENCHMARK, records, "authors")
        assert row + result.dropped == rows
        assert result.score == pytest.approx(100 * float((right == given).mean()))
        of_groups = sum(share.right for share in result.groups.values())
        assert 10 * of_groups == pytest.approx(result.details["slots_right"])  # groups add up to the whole


def test_published_layout(tmp_path):
    write_generated("ave", tmp_path, samples=5, split="test")
    questions = BENCHMARKS["ave"].questions(tmp_path)
    first = questions[0]
    assert first.reference in [f"event:Church bell start_time:0 end_time:{end}" for end in (1, 2, 3)]
    assert (first.id, first.where) == ("testSet-1", f"{tmp_path}/testSet.txt, row 1")
    samples = load_samples({"name": "ave", "folder": str(tmp_path), "split": "test"})
    for question, sample in zip(questions, samples, strict=True):  # models are asked as they were trained
        asked = ask(question, ave.prompt(question, ave.BENCHMARK.template))
        assert asked.messages[0] == sample.messages[0]
        for protocol in ("strict", "authors"):
            assert judge("ave", sample.answer, question.reference, protocol).right == 1
    assert ave.prompt(first, "Look: {question}").startswith("Look: Please describe the events and time range")


def test_the_file_of_the_authors_and_what_is_wrong_in_it(tmp_path):
    write_generated("ave", tmp_path, samples=2, split="test")
    expected = [question.reference for question in ave.load(tmp_path)]
    lines = (tmp_path / "testSet.txt").read_text().splitlines()
    (tmp_path / "testSet.txt").unlink()
    keys, path = ("event", "vid", "quality", "start_time", "end_time"), tmp_path / "test_samples_ave.json"
    rows = [dict(zip(keys, line.split("&"), strict=True)) for line in lines]
    path.write_text(json.dumps(rows))
    assert [question.reference for question in ave.load(tmp_path)] == expected
    for event in ("Dog", "none"):  # each video has one
        path.write_text(json.dumps([rows[0], rows[1] | {"event": event}]))
        with pytest.raises(ValueError, match=f"{path}, row 2, .*: expected one of church bell; .*; got '{event}'"):
            ave.load(tmp_path)
    path.write_text(json.dumps([rows[0], rows[1] | {"vid": "elsewhere"}]))
    with pytest.raises(FileNotFoundError, match=f"{path}, row 2, `vid`: no such file"):
        ave.load(tmp_path)


def test_there_are_28_events():
    assert len(set(EVENTS)) == len(EVENTS) == 28 and "none" not in EVENTS


def test_events_are_those_of_the_real_file():
    if not ANNOTATIONS.is_file():
        pytest.skip("the real annotations are not beside this checkout")
    lines = ANNOTATIONS.read_text().splitlines()
    assert set(EVENTS) == {line.split("&")[0].lower() for line in lines}
