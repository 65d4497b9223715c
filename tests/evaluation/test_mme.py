"""MME: PAPER's rules for yes and no, pairs of a picture's answers, and the sum over the subtasks."""

import math
import random

import pytest

from moka_peft.evaluation import BENCHMARKS, ask, mme

from .records import judge, scored, write_records

PROTOCOLS = pytest.mark.parametrize("protocol", ["strict", "authors"])


def answer(subtask, image, said, right="Yes"):
    return {"subtask": subtask, "image_path": image, "question": "?", "answer": right, "output": [said]}


def answers(subtask, rights):
    """Records of pictures a, b, ...: rights holds a text of 1 (right) and 0 for each, as in "11"."""
    return [
        answer(subtask, f"{chr(97 + place)}.jpg", "Yes" if right == "1" else "No")
        for place, text in enumerate(rights)
        for right in text
    ]


def result(folder, rows, protocol="strict"):
    return scored("mme", write_records(folder, rows), protocol)


@pytest.mark.parametrize(
    ("prediction", "reference", "strict", "authors"),
    [
        ("Yes", "Yes", ("yes", 1), ("yes", 1)),
        ("<s> **No**</s>", "No", ("no", 1), ("no", 1)),
        ("Eyes are seen", "No", (None, 0), ("yes", 0)),  # the "yes" inside
        ("No, but yes", "No", ("no", 1), ("yes", 0)),
        ("It is. Yes", "yes", (None, 0), ("yes", 1)),
        ("Never", "No", (None, 0), ("no", 1)),  # anything else is no
        ("", "No", (None, 0), ("no", 1)),
    ],
)
def test_yes_and_no(prediction, reference, strict, authors):
    for protocol, (parsed, right) in (("strict", strict), ("authors", authors)):
        judged = judge("mme", prediction, reference, protocol, subtask="OCR", image="a.jpg")
        assert (judged.parsed, judged.right) == (parsed, right), protocol
        judged = judge("mme", prediction, reference, protocol, subtask="code_reasoning", image="a.jpg")
        assert (judged.parsed, judged.right) == (parsed, None), protocol


@PROTOCOLS
@pytest.mark.parametrize(
    ("rights", "accuracy", "plus", "images", "unpaired"),
    [
        (["11"], 100, 100, 1, 0),
        (["10", "10", "11", "00"], 50, 25, 4, 0),
        (["01", "00"], 25, 0, 2, 0),
        (["110"], 100, 100, 1, 1),  # an odd picture loses its last
        (["0", "11"], 100, 100, 1, 1),
        (["1100"], 50, 50, 2, 0),  # four records of one picture are two pairs
        (["1", "1"], None, None, 0, 2),
    ],
)
def test_pairs(tmp_path, protocol, rights, accuracy, plus, images, unpaired):
    found = result(tmp_path, answers("count", rights), protocol)
    expected = {"accuracy": accuracy, "accuracy_plus": plus, "images": images, "unpaired": unpaired}
    assert found.details["subtasks"]["count"] == expected | {"score": (accuracy or 0) + (plus or 0)}
    assert found.score == (accuracy + plus if images else None)
    assert found.groups["count"].records == sum(map(len, rights))  # the unpaired stay in the share


def test_pictures_are_told_by_the_last_part_of_their_names_within_a_subtask(tmp_path):
    rows = [
        answer("OCR", "x/a.jpg", "Yes"),
        answer("color", "a.jpg", "No"),
        answer("OCR", "b.jpg", "No"),
        answer("OCR", "y\\a.jpg", "Yes"),
        answer("color", "a.jpg", "Yes"),
        answer("OCR", "b.jpg", "Yes"),
    ]
    found = result(tmp_path, rows)
    assert found.details["subtasks"]["OCR"]["score"] == 75 + 50
    assert found.details["subtasks"]["color"]["score"] == 50
    assert found.score == 175


def test_authors_score_the_posters_in_place_of_the_scenes(tmp_path):
    rows = answers("posters", ["11", "10"]) + answers("scene", ["00", "00"])
    assert result(tmp_path, rows).score == 125
    authors = result(tmp_path, rows, "authors")
    assert authors.score == 250
    assert authors.details["subtasks"]["scene"] == authors.details["subtasks"]["posters"]
    assert authors.groups["scene"].score == 0
    without = result(tmp_path, answers("posters", ["11", "10"]), "authors")
    assert (without.score, without.details, without.interval) == (authors.score, authors.details, authors.interval)
    assert result(tmp_path, answers("scene", ["11"]), "authors").score is None


def test_interval(tmp_path):
    rows = answers("posters", ["11", "10", "00"]) + answers("count", ["11", "11"])
    spread = ((350 / 3) ** 2 + (100 / 3) ** 2 + (250 / 3) ** 2) / 2 / 3  # of 200, 50 and 0 around 250 / 3
    for protocol, times in (("strict", 1), ("authors", 2)):
        total, half = 200 + times * 250 / 3, 1.96 * math.sqrt(times**2 * spread)
        expected = (max(0, total - half), total + half)
        found = result(tmp_path, rows, protocol)
        assert (found.score, found.interval) == (pytest.approx(total), pytest.approx(expected))
    assert result(tmp_path, answers("count", ["11", "00", "00"])).interval[0] == 0
    assert result(tmp_path, rows + answers("OCR", ["11"])).interval is None  # one pair tells nothing of the spread


def whole():
    return [row for subtask in mme.SUBTASKS for row in answers(subtask, ["11"] * (mme.PUBLISHED[subtask] // 2))]


def test_all_right_is_2000_points(tmp_path):
    found = result(tmp_path, whole())
    assert (found.score, found.interval, found.unit, found.partial) == (2000, (2000, 2000), "points", None)
    almost = result(tmp_path, whole() + answers("OCR", ["00"]))
    assert almost.interval[0] < almost.score < almost.interval[1] == 2000


def test_a_subtask_without_records_adds_nothing_and_makes_the_result_partial(tmp_path):
    rows = whole()
    for subtask, authors in (("scene", (2000, None)), ("posters", (1600, "no records of posters"))):
        kept = [row for row in rows if row["subtask"] != subtask]
        strict = result(tmp_path, kept)
        assert (strict.score, strict.partial) == (1800, f"no records of {subtask}")
        found = result(tmp_path, kept, "authors")
        assert (found.score, found.partial) == authors
    found = result(tmp_path, [row for row in rows[1:] if row["subtask"] != "scene"])
    assert found.partial == "no records of scene, 59 of 60 records of existence"


@PROTOCOLS
def test_cognition_is_left_out(tmp_path, protocol):
    rows = answers("OCR", ["11"]) + answers("code_reasoning", ["00", "1"])
    found = result(tmp_path, rows, protocol)
    assert (found.score, found.records, found.dropped, found.details["left_out"]) == (200, 5, 3, 3)
    assert [*found.groups] == ["OCR"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"subtask": "colour"}, r"records\.jsonl, line 2, `subtask`: expected one of existence, .*, got 'colour'"),
        ({"answer": "Maybe"}, r"records\.jsonl, line 2, `answer`: expected yes or no, got 'Maybe'"),
        ({"image_path": None}, r"records\.jsonl, line 2: `image` is missing: expected image or image_path"),
    ],
)
def test_wrong_records_are_errors(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        result(tmp_path, [answer("OCR", "a", "Yes"), answer("OCR", "a", "Yes") | change])


def by_hand(rows, protocol):
    """The sum, record by record: a second way, which shares nothing with the first."""
    total = 0.0
    for subtask in mme.SUBTASKS:
        source = "posters" if subtask == "scene" and protocol == "authors" else subtask
        waiting, counted, right, both, pairs = {}, 0, 0, 0, 0
        for row in rows:
            if row["subtask"] != source:
                continue
            said = row["output"][0]
            if protocol == "authors":
                good = ("yes" in said.lower()) == (row["answer"] == "Yes")
            else:
                good = said.split()[:1] == [row["answer"]]
            name = row["image_path"].rsplit("/", 1)[-1]
            if name not in waiting:
                waiting[name] = good
                continue
            first = waiting.pop(name)
            pairs, counted = pairs + 1, counted + 2
            right, both = right + first + good, both + (first and good)
        if pairs:
            total += 100 * right / counted + 100 * both / pairs
    return total


@PROTOCOLS
def test_random_records_come_to_what_counting_by_hand_comes_to(tmp_path, protocol):
    draw = random.Random(3)
    said = ["Yes", "No", "No and yes", "Eyes", "Hm", "Yes or no"]
    rows = [
        answer(
            draw.choice(mme.SUBTASKS),
            f"{draw.choice('xy')}/{draw.randrange(9)}.jpg",
            draw.choice(said),
            draw.choice(["Yes", "No"]),
        )
        for _ in range(700)
    ]
    assert result(tmp_path, rows, protocol).score == pytest.approx(by_hand(rows, protocol))


def write(
    folder, apart=("posters", "celebrity", "scene", "landmark", "artwork"), lines="Is it? \tYes\nIs it not?\tNo\n"
):
    for subtask in mme.SUBTASKS:
        for name in ("0002", "0001"):
            texts = folder / subtask / ("questions_answers_YN" if subtask in apart else "")
            images = folder / subtask / ("images" if subtask in apart else "")
            for place in (texts, images):
                place.mkdir(parents=True, exist_ok=True)
            (texts / f"{name}.txt").write_text(lines, encoding="utf-8")
            (images / f"{name}.{'png' if subtask == 'count' else 'jpg'}").write_bytes(b"picture")
    return folder


@pytest.mark.parametrize("root", mme.ROOTS)
def test_published_layout(tmp_path, root):
    write(tmp_path / root)
    questions = mme.load(tmp_path)
    assert len(questions) == 10 * 2 * 2
    assert list(dict.fromkeys(one.facts["subtask"] for one in questions)) == list(mme.SUBTASKS)
    assert [one.id for one in questions[:4]] == [
        f"existence-{name}" for name in ("0001-1", "0001-2", "0002-1", "0002-2")
    ]
    assert [(one.text, one.reference) for one in questions[:2]] == [("Is it?", "yes"), ("Is it not?", "no")]
    found = {one.id: one for one in questions}
    assert found["count-0001-1"].images == (str(tmp_path / root / "count/0001.png"),)
    assert found["scene-0002-2"].images == (str(tmp_path / root / "scene/images/0002.jpg"),)
    assert found["scene-0002-2"].facts == {"subtask": "scene", "image": "0002.jpg"}
    prompt = BENCHMARKS["mme"].prompt(questions[0], mme.BENCHMARK.template)
    assert prompt == "<image>\nIs it?"
    assert ask(questions[0], prompt).messages[0]["content"][0]["type"] == "image"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("OCR/0001.txt", "Is it? Yes\n", r"OCR/0001\.txt, row 1, `row`: expected 2 columns"),
        ("OCR/0001.txt", "Is it?\tYes\n\nIs it?\tPerhaps\n", r"OCR/0001\.txt, row 2, `answer`: expected Yes or No"),
        ("OCR/0003.txt", "Is it?\tYes\n", r"OCR/0003\.txt, row 1, `image`: no such file: .*OCR/0003\.jpg"),
    ],
)
def test_wrong_files_are_errors(tmp_path, name, content, message):
    (write(tmp_path) / name).write_text(content, encoding="utf-8")
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        mme.load(tmp_path)


def test_a_missing_subtask_is_an_error(tmp_path):
    for path in (write(tmp_path) / "color").glob("*.txt"):
        path.unlink()
    with pytest.raises(FileNotFoundError, match=r"subtask color of `mme` not found: expected .*color/\*\.txt"):
        mme.load(tmp_path)
