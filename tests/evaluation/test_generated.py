"""Made-up benchmarks: whoever looks and listens answers all of their questions right."""

import hashlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from moka_peft.evaluation import BENCHMARKS, Record, ask
from moka_peft.evaluation.generated import tiny, tiny_benchmark, write_benchmark

from .perception import MEDIA, answer, perceive

OPTIONS = [
    (name, options)
    for name, known in BENCHMARKS.items()
    for options in [{}, *({key: value} for key, values in known.options.items() for value in values[1:])]
]


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Callable[..., Path]:
    """The folder of a stand-in, written once for each of the arguments."""
    folders: dict[str, Path] = {}

    def write(name: str, **options: Any) -> Path:
        key = f"{name} {options}"
        if key not in folders:
            folders[key] = tmp_path_factory.mktemp(name)
            write_benchmark(name, folders[key], **options)
        return folders[key]

    return write


@pytest.mark.parametrize(("name", "options"), OPTIONS, ids=str)
def test_who_looks_and_listens_is_right(written, name: str, options: dict[str, Any]):
    known = BENCHMARKS[name]
    questions = known.questions(written(name, **options), **options)
    assert questions and len({question.id for question in questions}) == len(questions)
    for question in questions:
        sample = ask(question, known.prompt(question, known.template), MEDIA)
        said = answer(question, perceive(sample))
        record = Record(question.id, question.text, question.reference, said, question.facts, question.where)
        assert known.parse(record, "strict").right == 1, (question, said)


@pytest.mark.parametrize("name", BENCHMARKS)
def test_files_depend_on_the_arguments_alone(tmp_path: Path, name: str):
    for folder, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_benchmark(name, tmp_path / folder, samples=2, seed=seed)
    assert digests(tmp_path / "a") == digests(tmp_path / "b") != digests(tmp_path / "c")


def digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.parametrize(
    ("name", "options", "fact", "sizes"),
    [
        ("mme", {}, "subtask", {1: 10 * [2], 24: [*2 * [4], *8 * [2]]}),
        ("pope", {}, "split", {1: [1, 1, 1], 4: [2, 1, 1]}),
        ("seed_bench", {"part": "all"}, "question_type", {1: [1, 1, 1, 1], 5: [2, 1, 1, 1]}),
        ("mmau", {}, "task", {1: [1, 1, 1], 5: [2, 2, 1]}),
        ("air_bench", {"part": "all"}, "task", {1: [1, 1, 1], 6: [2, 2, 2]}),
    ],
)
def test_each_group_gets_its_share(tmp_path: Path, name: str, options, fact: str, sizes: dict[int, list[int]]):
    for samples, expected in sizes.items():
        write_benchmark(name, tmp_path / str(samples), samples=samples)
        questions = BENCHMARKS[name].questions(tmp_path / str(samples), **options)
        assert sorted(Counter(question.facts[fact] for question in questions).values(), reverse=True) == expected


def test_mme_has_pairs_in_both_of_its_layouts(written):
    questions = BENCHMARKS["mme"].questions(written("mme"))
    for first, second in zip(questions[::2], questions[1::2], strict=True):
        assert first.images == second.images and {first.reference, second.reference} == {"yes", "no"}
        subtask, place = first.facts["subtask"], Path(str(first.images[0])).parent
        apart = subtask in ("posters", "celebrity", "scene", "landmark", "artwork")
        assert place.name == ("images" if apart else subtask)
        assert (place.parent / "questions_answers_YN").is_dir() == apart


def test_mmbench_lacks_choices_and_shares_pictures(written):
    folder = written("mmbench", samples=8)
    questions = BENCHMARKS["mmbench"].questions(folder)
    assert [len(question.facts["choices"]) for question in questions] == 2 * [4, 2, 4, 4]
    images = [question.images for question in questions]
    assert (images[0], images[4]) == (images[3], images[7])
    assert "\t4\tmade up\t" in next(folder.glob("*.tsv")).read_text()


def test_seed_bench_has_videos_and_their_frames(written):
    questions = BENCHMARKS["seed_bench"].questions(written("seed_bench"), part="all")
    assert [(len(question.images), len(question.videos)) for question in questions] == [(1, 0), (1, 0), (0, 1), (2, 0)]


def test_air_bench_lacks_choices_and_has_flac(written):
    questions = BENCHMARKS["air_bench"].questions(written("air_bench"), part="all")
    found = [(Path(str(question.audios[0])).suffix, len(question.facts["choices"])) for question in questions]
    assert found == [(".wav", 4), (".wav", 2), (".flac", 3), (".wav", 4)]


@pytest.mark.parametrize(
    ("name", "options", "error"),
    [
        ("vqa", {}, "`name` is no benchmark: expected one of music_avqa, .*, got vqa"),
        ("mme", {"samples": 0}, "`samples` is too small: expected at least 1, got 0"),
        ("pope", {"split": "test"}, "`split` of POPE is wrong: expected one of all, .*, got test"),
        ("mmau", {"part": "all"}, "`part` of MMAU is wrong: expected some of split, task, got all"),
    ],
)
def test_wrong_arguments_are_named(tmp_path: Path, name: str, options: dict[str, Any], error: str):
    with pytest.raises(ValueError, match=error):
        write_benchmark(name, tmp_path, **options)
    assert not any(tmp_path.iterdir())


def test_tiny_runs_share_a_stand_in(tmp_path: Path):
    folder = tiny_benchmark("pope", tmp_path / "run", split="random")
    assert folder == tmp_path / "tiny" / "data" / "benchmark-pope-split=random"
    [question] = BENCHMARKS["pope"].questions(folder, split="random")[:1]
    Path(str(question.images[0])).write_bytes(b"kept")
    assert tiny_benchmark("pope", tmp_path / "another", split="random") == folder
    assert Path(str(question.images[0])).read_bytes() == b"kept"


def test_tiny_stand_ins_are_whole_or_not_there(tmp_path: Path, monkeypatch):
    def torn(name: str, folder: Path, **_: Any) -> None:
        folder.mkdir()
        raise OSError("no space left")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="no space left"):
        patch.setattr(tiny, "write_benchmark", torn)
        tiny_benchmark("pope", tmp_path / "run")
    assert not any((tmp_path / "tiny" / "data").iterdir())
    (tmp_path / "other" / "tiny").mkdir(parents=True)
    with pytest.raises(ValueError, match="a folder beside it that --tiny did not make"):
        tiny_benchmark("pope", tmp_path / "other" / "run")
