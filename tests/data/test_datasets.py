"""Published datasets: each is read in its layout, from made-up files and from real rows, and says what is wrong."""

import itertools
import json
import pickle
from pathlib import Path
from typing import Any, get_args

import pytest

from moka_peft.data import BadSample, MediaOptions, load_samples
from moka_peft.data.datasets import DATASETS, open_dataset
from moka_peft.data.generated import WRITERS, write_generated
from moka_peft.data.media import load_media
from moka_peft.data.samples import text_of
from moka_peft.data.sources import GENERATED
from moka_peft.training.recipe_data import Source

ANNOTATIONS = Path(__file__).parents[3] / "shared" / "data" / "annotations"
AV = "This is a video:\n\nThis is an audio:\n\n"


def every_form() -> list[tuple[str, str, dict[str, Any]]]:
    """Each dataset with each of its splits, and each of its options with the first split."""
    forms = []
    for name, dataset in DATASETS.items():
        options = [
            dict(zip(dataset.options, values, strict=True)) for values in itertools.product(*dataset.options.values())
        ]
        forms += [(name, split, options[0]) for split in dataset.splits]
        forms += [(name, dataset.splits[0], chosen) for chosen in options[1:]]
    return forms


@pytest.fixture
def annotations() -> Path:
    if not ANNOTATIONS.is_dir():
        pytest.skip("the real annotation rows are not beside this checkout")
    return ANNOTATIONS


@pytest.fixture
def made(tmp_path: Path):
    """made("ave", reasoning=True) -> its samples, written and read."""

    def make(name: str, split: str = "train", samples: int = 3, skip: bool = False, **options: Any):
        write_generated(name, tmp_path, samples=samples, split=split, **options)
        source = {"name": name, "folder": str(tmp_path), "split": split, **options}
        return load_samples(source, on_bad_sample="skip" if skip else "raise")

    return make


@pytest.mark.parametrize("who", ["system", "user"])
def test_a_conversation_of_other_speakers_is_not_taken_for_a_single_turn(who: str, tmp_path: Path):
    write_generated("llava_instruct", tmp_path, samples=1)
    path = tmp_path / "llava_instruct_150k.json"
    (row,) = json.loads(path.read_text())
    row["conversations"][2]["from"] = who
    path.write_text(json.dumps([row]))
    (read,) = load_samples({"name": "llava_instruct", "folder": str(tmp_path), "turns": "single"}, on_bad_sample="skip")
    assert isinstance(read, BadSample)
    assert f"`conversations[2].from`: cannot be split: expected human or gpt, got '{who}'" in read.problem


@pytest.mark.parametrize("rows", ['1,a,0,"a dog\n2,a,0,a cat\n', '1,a,0,"a dog\n2,a,0,"a cat"\n'])
def test_a_quote_that_does_not_end_takes_in_no_other_row(rows: str, tmp_path: Path):
    (tmp_path / "train.csv").write_text(f"audiocap_id,youtube_id,start_time,caption\n{rows}")
    with pytest.raises(ValueError, match=r"train\.csv, line 3: .*Correct the quotes there, or above\."):
        open_dataset("audiocaps", tmp_path)


@pytest.mark.parametrize("name", DATASETS)
def test_a_folder_may_be_named_from_here(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    split = DATASETS[name].splits[-1]
    write_generated(name, "data/here", samples=1, split=split)
    (sample,) = load_samples({"name": name, "folder": "data/here", "split": split})
    parts = [part for message in sample.messages for part in message["content"] if part["type"] != "text"]
    assert parts and all(Path(part[part["type"]]).is_file() for part in parts)


def test_a_recipe_and_the_writers_know_every_dataset():
    (known,) = [choice for choice in get_args(Source.model_fields["name"].annotation) if choice is not type(None)]
    assert set(get_args(known)) == {*DATASETS, *GENERATED}
    assert set(WRITERS) == set(DATASETS)
    assert {option for dataset in DATASETS.values() for option in dataset.options} <= set(Source.model_fields)


@pytest.mark.parametrize(("name", "split", "options"), every_form())
def test_every_form_is_read_with_its_media(made, name: str, split: str, options: dict[str, Any]):
    samples = made(name, split, **options)
    assert len(samples) >= 3 and len({sample.id for sample in samples}) == len(samples)
    kinds = set()
    for sample in samples:
        assert text_of(sample.messages[0]).strip() and sample.answer.strip()
        for kind in ("image", "video", "audio"):
            loaded = load_media(sample, kind, MediaOptions(), 16_000)
            kinds |= {kind} if loaded else set()
            assert all(medium.any() for medium in loaded if kind == "audio"), "silence"
    assert kinds == MEDIA[name]
    assert [again.id for again in pickle.loads(pickle.dumps(samples))] == [sample.id for sample in samples]


MEDIA = {
    "music_avqa": {"video", "audio"},
    "ave": {"video", "audio"},
    "video_llava": {"image", "video"},
    "audiocaps": {"audio"},
    "llava_instruct": {"image"},
    "a_okvqa": {"image"},
    "librispeech": {"audio"},
    "libri_sqa": {"audio"},
}


def test_music_avqa_fills_real_questions(annotations: Path, tmp_path: Path):
    rows = json.loads((annotations / "music_avqa_test_sample.json").read_text())
    (tmp_path / "json").mkdir()
    (tmp_path / "json" / "avqa-test.json").write_text(json.dumps(rows))
    (tmp_path / "videos").mkdir()
    for row in rows:
        (tmp_path / "videos" / f"{row['video_id']}.mp4").touch()
    samples = load_samples({"name": "music_avqa", "folder": str(tmp_path), "split": "test"})
    assert len(samples) == len(rows) == 54
    texts = [text_of(sample.messages[0]) for sample in samples]
    assert not any("<" in text for text in texts)
    asked = AV + "Please answer this question: Is the violin in the video always playing?"
    assert (samples[2].group, samples[2].kind, samples[2].answer, texts[2]) == (
        "Audio-Visual",
        "Existential",
        "<answer>no</answer>",
        asked,
    )
    two = next(i for i, row in enumerate(rows) if row["templ_values"] == '["left", "saxophone"]')
    assert texts[two].endswith("What is the instrument on the left of saxophone?")
    assert {sample.group for sample in samples} == {"Audio", "Visual", "Audio-Visual"}


def test_ave_reads_the_real_file(annotations: Path, tmp_path: Path):
    lines = (annotations / "ave_Annotations.txt").read_text().splitlines()
    (tmp_path / "Annotations.txt").write_text("\n".join(lines))
    (tmp_path / "AVE").mkdir()
    for line in lines:
        (tmp_path / "AVE" / f"{line.split('&')[1]}.mp4").touch()
    samples = load_samples({"name": "ave", "folder": str(tmp_path), "split": "all"})
    assert len(samples) == 4143
    assert samples[1].answer == "<event>Church bell</event><range>6,8</range>"
    chosen = range(0, 4143, 10)
    assert [samples[i].kind for i in chosen] == [lines[i].split("&")[0] for i in chosen]
    request = "Please describe the events and time range that occurred in the video."
    assert text_of(samples[0].messages[0]) == AV + request


def test_ave_takes_a_header_and_the_authors_file(made, tmp_path: Path):
    plain = [sample.answer for sample in made("ave")]
    path = tmp_path / "trainSet.txt"
    lines = path.read_text()
    path.write_text("Category&VideoID&Quality&StartTime&EndTime\n" + lines)
    source = {"name": "ave", "folder": str(tmp_path)}
    assert [sample.answer for sample in load_samples(source)] == plain
    keys = ("event", "vid", "quality", "start_time", "end_time")
    rows = [dict(zip(keys, line.split("&"), strict=True)) for line in lines.splitlines()]
    path.rename(tmp_path / "elsewhere")
    (tmp_path / "train_samples_ave.json").write_text(json.dumps(rows))
    assert [sample.answer for sample in load_samples(source)] == plain


def test_sound_beside_a_video_comes_before_its_own(made, tmp_path: Path):
    own = made("music_avqa")
    assert own[0].media("audio")[0]["audio"].endswith(".mp4")
    (tmp_path / "audio").mkdir()
    for sample in own:
        name = Path(sample.media("video")[0]["video"]).stem
        (tmp_path / "audio" / f"{name}.wav").touch()
    beside = load_samples({"name": "music_avqa", "folder": str(tmp_path)})
    assert beside[0].media("audio")[0]["audio"].endswith("audio/00000000.wav")


def test_reasoning_is_the_answer(made):
    answers = [sample.answer for sample in made("music_avqa", reasoning=True)]
    assert all(answer.startswith("Bars: ") and answer.endswith("</answer>") for answer in answers)
    assert made("ave", reasoning=True)[0].answer.startswith("It begins at second 0. <event>Church bell</event>")


def test_conversations_are_split_into_turns_with_the_picture_first(made, tmp_path: Path):
    whole = made("llava_instruct")
    split = load_samples({"name": "llava_instruct", "folder": str(tmp_path), "turns": "single"})
    assert [len(sample.messages) for sample in whole] == [4, 2, 4] and len(split) == 5
    order = ["text", "image", "text"]
    assert all([part["type"] for part in sample.messages[0]["content"]] == order for sample in split)
    asked = "This is an image:\n\nPlease answer this question: "
    assert text_of(split[1].messages[0]) == asked + "How many are there?"
    assert text_of(split[2].messages[0]) == asked + "Which colour do the bars have?"
    assert [sample.answer for sample in split[:2]] == [whole[0].messages[1]["content"][0]["text"], whole[0].answer]
    assert [sample.id for sample in split[:3]] == ["000000000000-1", "000000000000-2", "000000000001-1"]
    assert split[1].where.endswith("llava_instruct_150k.json, row 1, turn 2")


def test_captions_may_be_asked_with_the_medium_in_front(made):
    picture, clip, _ = made("video_llava", turns="single")
    assert text_of(picture.messages[0]) == "This is an image:\n\nPlease answer the question:\nWhat is shown?"
    assert text_of(clip.messages[0]) == "This is a video:\n\nPlease answer the question:\nWhat is shown?"


def test_captions_of_audiocaps_share_recordings(made):
    samples = made("audiocaps", "val", samples=4)
    heard = [sample.media("audio")[0]["audio"] for sample in samples]
    assert heard[0] == heard[1] != heard[2] and samples[0].answer != samples[1].answer


def test_choices_are_answered_by_letter(made, tmp_path: Path):
    samples = made("a_okvqa", "val")
    rows = json.loads((tmp_path / "aokvqa_v1p0_val.json").read_text())
    for sample, row in zip(samples, rows, strict=True):
        right = row["choices"][row["correct_choice_idx"]]
        assert f"\n{sample.answer}. {right}\n" in text_of(sample.messages[0])
        assert sample.media("image")[0]["image"].endswith(f"val2017/{row['image_id']:012d}.jpg")


def test_speech_is_found_by_the_last_part_of_its_path(made, tmp_path: Path):
    made("libri_sqa", part=2)
    path = tmp_path / "LibriSQA-PartII" / "LibriSQA-PartII-train.json"
    rows = json.loads(path.read_text())
    for row, start in zip(rows, ("/data/elsewhere/", "train-clean-360/", ""), strict=True):
        row["speech_path"] = start + row["speech_path"].rsplit("/", 1)[1]
    path.write_text(json.dumps(rows))
    samples = load_samples({"name": "libri_sqa", "folder": str(tmp_path), "part": 2})
    assert all(sample.media("audio")[0]["audio"].endswith(".flac") for sample in samples)
    assert [sample.answer for sample in samples] == [row["answer"] for row in rows]


def test_transcripts_are_in_small_letters(made):
    samples = made("librispeech", "test")
    assert samples[0].id == "3-102-0000" and samples[0].answer.islower()
    assert samples[0].where.endswith("test-clean/3/102/3-102.trans.txt, row 1")


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("music_avqa", {}, "json/avqa-train.json` or `.*/train_samples_with_reasoning_avqa.json`"),
        ("music_avqa", {"split": "val"}, "expected `[^`]*/json/avqa-val.json`. Put it there"),
        ("music_avqa", {"reasoning": True}, "expected `[^`]*/train_samples_with_reasoning_avqa.json`. Put it there"),
        ("ave", {"split": "test"}, "testSet.txt` or `.*/test_samples_ave.json`"),
        ("video_llava", {}, "valley_llavaimage.json` or "),
        ("audiocaps", {"split": "val"}, "dataset/val.csv` or "),
        ("llava_instruct", {}, "llava_instruct_150k.json`"),
        ("a_okvqa", {}, "aokvqa_v1p0_train.json`"),
        ("librispeech", {"split": "dev-other"}, r"LibriSpeech/dev-other/SPEAKER/CHAPTER/\*.trans.txt`"),
        ("libri_sqa", {"part": 2}, "LibriSQA-PartII/LibriSQA-PartII-train.json` or "),
    ],
)
def test_a_missing_file_is_named_with_its_place(tmp_path: Path, name: str, options: dict[str, Any], expected: str):
    with pytest.raises(
        FileNotFoundError, match=f"of `{name}` not found: .*{expected}.*docs/datasets.md, section {name}"
    ):
        open_dataset(name, tmp_path, **options)


@pytest.mark.parametrize(
    ("name", "options", "problem"),
    [
        ("ave", {"split": "dev"}, "`split` of ave is wrong: expected train or val or test or all, got dev"),
        ("ave", {"turns": "single"}, "`turns` of ave has no meaning: expected some of split, reasoning"),
        ("llava_instruct", {"turns": "double"}, "expected multi or single, got double"),
        ("music_avqa", {"reasoning": 1}, "expected false or true, got 1"),
        ("music_avqa", {"split": "test", "reasoning": True}, "only `split: train` has it, got test"),
        ("libri_sqa", {"part": True}, "expected 1 or 2, got True"),
    ],
)
def test_unknown_options_are_refused(tmp_path: Path, name: str, options: dict[str, Any], problem: str):
    with pytest.raises(ValueError, match=problem):
        load_samples({"name": name, "folder": str(tmp_path), **options})
    with pytest.raises(ValueError, match="`folder` of ave is missing"):
        load_samples({"name": "ave"})


def break_row(tmp_path: Path, file: str, row: int, changes: dict[str, Any]) -> None:
    rows = json.loads((tmp_path / file).read_text())
    rows[row] = changes["row"] if "row" in changes else {**rows[row], **changes}
    (tmp_path / file).write_text(json.dumps(rows))


AVQA, LLAVA, OKVQA = "json/avqa-train.json", "llava_instruct_150k.json", "aokvqa_v1p0_train.json"
SQA = "LibriSQA-PartI/LibriSQA-PartI-train.json"


@pytest.mark.parametrize(
    ("name", "file", "changes", "problem"),
    [
        ("music_avqa", AVQA, {"templ_values": "[]"}, "`templ_values`: expected 2 words for the placeholders of"),
        ("music_avqa", AVQA, {"templ_values": "notes"}, "`templ_values`: expected a list in JSON, got 'notes'"),
        ("music_avqa", AVQA, {"type": '["Audio"]'}, r'`type`: expected \["Audio", "Counting"\] or the like'),
        ("music_avqa", AVQA, {"anser": None}, "`anser`: expected a text, got None"),  # codespell:ignore anser
        ("music_avqa", AVQA, {"video_id": "x"}, "`video_id`: no such file: expected one of .*videos/x.mp4"),
        ("music_avqa", AVQA, {"row": 3}, "`row`: expected an object, got 3"),
        ("llava_instruct", LLAVA, {"image": "x.jpg"}, "`image`: no such file: expected one of .*train2017/x.jpg"),
        ("llava_instruct", LLAVA, {"conversations": []}, "`conversations`: expected a list of messages"),
        ("a_okvqa", OKVQA, {"correct_choice_idx": 4}, "`correct_choice_idx`: expected 0 to 3, got 4"),
        ("a_okvqa", OKVQA, {"choices": "red"}, "`choices`: expected a list of texts, got 'red'"),
        ("a_okvqa", OKVQA, {"image_id": "x"}, "`image_id`: expected COCO's number of a picture, got 'x'"),
        ("libri_sqa", SQA, {"speech_path": "a.wav"}, "`speech_path`: expected SPEAKER-CHAPTER-NUMBER.wav, got 'a.wav'"),
        ("libri_sqa", SQA, {"speech_path": "1-2-3.wav"}, "expected one of .*train-clean-360/1/2/1-2-3.flac"),
        ("video_llava", "valley_llavaimage.json", {"video": "valley/x.mp4"}, "valley/x.mp4` not found"),
    ],
)
def test_a_bad_row_is_named_or_skipped(made, tmp_path: Path, name: str, file: str, changes: dict, problem: str):
    made(name)
    break_row(tmp_path, file, 1, changes)
    source = {"name": name, "folder": str(tmp_path)}
    with pytest.raises((ValueError, FileNotFoundError), match=f"{Path(file).name}, row 2, .*{problem}"):
        load_samples(source)[1]
    with pytest.raises((ValueError, FileNotFoundError), match="row 2"):
        load_samples(source | {"streaming": False})
    good, bad, other = load_samples(source, on_bad_sample="skip")
    assert isinstance(bad, BadSample) and "row 2" in bad.where and bad.problem
    assert good.answer and other.answer


@pytest.mark.parametrize(
    ("name", "file", "old", "new", "problem"),
    [
        ("ave", "trainSet.txt", "&good&0&", "&good&9&", "row 1, `EndTime`: expected 9 or later, got"),
        ("ave", "trainSet.txt", "&good&0&", "&good&soon&", "row 1, `StartTime`: expected a whole second, got 'soon'"),
        ("ave", "trainSet.txt", "&good&0&", "&0&", "row 1, `row`: expected 5 columns .*, got 4"),
        ("ave", "trainSet.txt", "clip-0000_0000", "x", "row 1, `VideoID`: no such file: expected one of .*AVE/x.mp4"),
        ("audiocaps", "dataset/train.csv", "clip-0000_0", "x", "audio/train/x.wav`, .*audio/0.mp3`"),
        (
            "librispeech",
            "LibriSpeech/train-clean-100/1/100/1-100.trans.txt",
            "1-100-0000",
            "1-100-9",
            "9.flac` not found",
        ),
        ("librispeech", "LibriSpeech/train-clean-100/1/100/1-100.trans.txt", " ONE MIDDLE NOTE", "", "row 2, `text`"),
    ],
)
def test_bad_lines_are_named(made, tmp_path: Path, name: str, file: str, old: str, new: str, problem: str):
    made(name, samples=4)
    text = (tmp_path / file).read_text()
    assert old in text
    (tmp_path / file).write_text(text.replace(old, new, 1))
    with pytest.raises((ValueError, FileNotFoundError), match=problem):
        list(load_samples({"name": name, "folder": str(tmp_path)}))


def test_a_table_without_its_columns_is_refused(made, tmp_path: Path):
    made("audiocaps")
    (tmp_path / "dataset" / "train.csv").write_text("id,caption\n1,rain\n")
    with pytest.raises(ValueError, match="line 1: expected columns audiocap_id, .*, got id, caption: audiocap_id, you"):
        load_samples({"name": "audiocaps", "folder": str(tmp_path)})
    (tmp_path / "dataset" / "train.csv").write_text("audiocap_id,youtube_id,start_time,caption\n")
    with pytest.raises(ValueError, match="audiocaps in `.*` is empty: expected at least 1 row"):
        load_samples({"name": "audiocaps", "folder": str(tmp_path)})
