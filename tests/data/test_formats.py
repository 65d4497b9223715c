"""The forms of conversations that are read, and errors that name file, row and field."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from moka_peft.data import MediaOptions, Sample, load_samples

ANSWER = {"role": "assistant", "content": "a cat"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.png", "b.png"):
        Image.fromarray(np.zeros((2, 2), dtype=np.uint8)).save(tmp_path / name)
    return tmp_path


def write_rows(folder: Path, *rows: Any) -> Path:
    path = folder / "rows.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return path


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def test_parts_and_tags_give_the_same_messages(folder: Path):
    parts = user([{"type": "image", "image": "a.png"}, {"type": "text", "text": "What?"}])
    path = write_rows(
        folder,
        {"id": 7, "messages": [parts, ANSWER], "group": "Visual", "kind": "what"},
        {"messages": [user("<image>What?"), ANSWER], "images": ["a.png"]},
    )
    first, second = load_samples(path)
    image = {"type": "image", "image": str(folder / "a.png")}
    assert first.messages == second.messages
    assert first.messages[0]["content"] == [image, {"type": "text", "text": "What?"}]
    assert (first.id, first.group, first.kind, second.id) == ("7", "Visual", "what", "rows-2")
    assert first.answer == "a cat" and first.media("image") == [image] and first.media("audio") == []


def test_tags_take_files_in_reading_order_over_turns(folder: Path):
    messages = [user("<image> one"), ANSWER, user("two <image>"), ANSWER]
    (sample,) = load_samples({"path": write_rows(folder, {"messages": messages, "images": ["b.png", "a.png"]})})
    assert [part["image"] for part in sample.media("image")] == [str(folder / "b.png"), str(folder / "a.png")]


def test_json_list_reads_like_json_lines(folder: Path):
    rows = [{"messages": [user("Hi"), ANSWER]}] * 2
    (folder / "rows.json").write_text(json.dumps(rows))
    from_list, from_lines = load_samples(folder / "rows.json"), load_samples(write_rows(folder, *rows))
    assert list(from_list) == list(from_lines) and isinstance(from_list[0], Sample)


BAD_ROWS = [
    ("no object", 3, r"row 1, `row`: expected an object with `messages` or `conversations`, got int"),
    ("no messages", {"text": "Hi"}, r"row 1, `messages`: expected a list of messages, got None"),
    ("no answer", {"messages": [user("Hi")]}, r"`messages\[0\].role`: expected the last message .* got user"),
    ("role", {"messages": [{"role": "human", "content": "Hi"}, ANSWER]}, r"`messages\[0\].role`: .* got 'human'"),
    ("content", {"messages": [user(5), ANSWER]}, r"`messages\[0\].content`: expected text or a list .* got 5"),
    (
        "part type",
        {"messages": [user([{"type": "text", "text": "x"}, {"type": "img"}]), ANSWER]},
        r"`messages\[0\].content\[1\].type`: expected text, image, video or audio, got 'img'",
    ),
    (
        "part value",
        {"messages": [user([{"type": "image", "image": 3}]), ANSWER]},
        r"`messages\[0\].content\[0\].image`: expected a string, got 3",
    ),
    (
        "fewer files than tags",
        {"messages": [user("<image><image> What?"), ANSWER], "images": ["a.png"]},
        r"`images`: 2 `<image>` in the text, 1 image files attached. Write one `<image>` per file",
    ),
    (
        "file without a tag",
        {"messages": [user("What?"), ANSWER], "audios": ["a.png"]},
        r"`audios`: 0 `<audio>` in the text, 1 audio files attached",
    ),
    (
        "list of files",
        {"messages": [user("<image>"), ANSWER], "images": "a.png"},
        r"`images`: expected a list of paths, got 'a.png'",
    ),
]


@pytest.mark.parametrize(("row", "message"), [bad[1:] for bad in BAD_ROWS], ids=[bad[0] for bad in BAD_ROWS])
def test_bad_row_names_file_row_and_field(folder: Path, row: Any, message: str):
    with pytest.raises(ValueError, match=message) as error:
        load_samples(write_rows(folder, row))
    assert "rows.jsonl" in str(error.value)


def test_missing_media_file_names_row_and_path(folder: Path):
    row = {"messages": [user("<image> What?"), ANSWER], "images": ["gone.png"]}
    with pytest.raises(FileNotFoundError, match=r"row 2, `images\[0\]`: file `.*gone\.png` not found"):
        load_samples(write_rows(folder, {"messages": [user("Hi"), ANSWER]}, row))


def test_broken_json_names_the_line(folder: Path):
    (folder / "rows.jsonl").write_text('\n\n{"messages": [')
    with pytest.raises(ValueError, match=r"rows\.jsonl, row 1, `line 3`: not valid JSON"):
        load_samples(folder / "rows.jsonl")


@pytest.mark.parametrize(("content", "message"), [("{}", "expected a list of rows, got dict"), ("[]", "is empty")])
def test_file_without_rows(folder: Path, content: str, message: str):
    (folder / "rows.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        load_samples(folder / "rows.json")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            {"name": "coco"},
            "`name` is no known dataset: expected one of av_digits, spoken_digits, .*libri_sqa, got coco",
        ),
        ({"name": "av_digits", "sizes": 3}, r"unknown keys \['sizes'\]: expected split, size, seed, groups"),
        ({"path": "x.json", "size": 2}, r"unknown keys \['size'\]"),
        ({"name": "av_digits", "split": "dev"}, "`split` is unknown: expected one of align, train, test, got dev"),
    ],
)
def test_bad_source(source: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        load_samples(source)


def test_missing_data_file():
    with pytest.raises(FileNotFoundError, match=r"data file `gone\.json` not found"):
        load_samples("gone.json")


FORMATS = {
    "openai": {
        "messages": [
            {"role": "developer", "content": "Be short."},
            user(
                [{"type": "image_url", "image_url": {"url": "a.png", "detail": "low"}}, {"type": "text", "text": "\n?"}]
            ),
            ANSWER,
        ]
    },
    "messages": {
        "messages": [{"role": "system", "content": "Be short."}, user("<image>\n?"), ANSWER],
        "images": ["a.png"],
    },
    "llava": {
        "conversations": [
            {"from": "system", "value": "Be short."},
            {"from": "human", "value": "<image>\n?"},
            {"from": "gpt", "value": "a cat"},
        ],
        "image": "a.png",
    },
    "sharegpt": {
        "system": "Be short.",
        "conversations": [{"from": "human", "value": "<image>\n?"}, {"from": "gpt", "value": "a cat"}],
        "images": ["a.png"],
    },
}


@pytest.mark.parametrize("forced", [False, True])
@pytest.mark.parametrize("name", FORMATS)
def test_all_formats_give_the_same_messages(folder: Path, name: str, forced: bool):
    source = {"path": write_rows(folder, FORMATS[name]), "format": name if forced else None}
    (sample,) = load_samples(source)
    assert sample.messages == [
        {"role": "system", "content": [{"type": "text", "text": "Be short."}]},
        user([{"type": "image", "image": str(folder / "a.png")}, {"type": "text", "text": "\n?"}]),
        {"role": "assistant", "content": [{"type": "text", "text": "a cat"}]},
    ]


def test_format_can_be_forced(folder: Path):
    path = write_rows(folder, FORMATS["llava"] | {"messages": "notes"})
    with pytest.raises(ValueError, match=r"`conversations`: stands beside `messages`"):
        load_samples(path)
    assert load_samples({"path": path, "format": "llava"})[0].answer == "a cat"
    with pytest.raises(ValueError, match="`messages`: expected a list of messages, got 'notes'"):
        load_samples({"path": path, "format": "openai"})
    with pytest.raises(ValueError, match="`format` is unknown: expected one of openai, messages, llava, sharegpt"):
        load_samples({"path": path, "format": "alpaca"})


def test_openai_parts_of_all_media(folder: Path):
    (folder / "a.mp4").write_bytes(b"video")
    parts = [
        {"type": "input_audio", "input_audio": {"data": "c291bmQ=", "format": "wav"}},
        {"type": "audio_url", "audio_url": {"url": "data:audio/wav;base64,c291bmQ="}},
        {"type": "video_url", "video_url": "a.mp4"},
        {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}},
        {"type": "image", "path": "a.png"},
        {"type": "text", "text": "?"},
    ]
    options = MediaOptions(allow_urls=True, video_sound=True)
    (sample,) = load_samples(write_rows(folder, {"messages": [user(parts), ANSWER]}), media=options)
    video = str(folder / "a.mp4")
    assert sample.messages[0]["content"] == [
        {"type": "audio", "audio": b"sound"},
        {"type": "audio", "audio": b"sound"},
        {"type": "video", "video": video},
        {"type": "audio", "audio": video},
        {"type": "image", "image": "https://example.org/a.png"},
        {"type": "image", "image": str(folder / "a.png")},
        {"type": "text", "text": "?"},
    ]


def test_parts_without_a_file_take_the_listed_ones(folder: Path):
    row = {"messages": [user([{"type": "image"}, {"type": "text", "text": "?"}]), ANSWER], "images": ["b.png"]}
    (sample,) = load_samples(write_rows(folder, row))
    assert sample.media("image") == [{"type": "image", "image": str(folder / "b.png")}]


def test_answers_without_loss_are_marked(folder: Path):
    turns = [user("1"), {**ANSWER, "loss": False}, user("2"), {**ANSWER, "loss": True}]
    sharegpt = [{"from": "human", "value": "1"}, {"from": "gpt", "value": "2", "loss": False}]
    first, second = load_samples(write_rows(folder, {"messages": turns}, {"conversations": sharegpt}))
    assert [message.get("loss") for message in first.messages] == [None, False, None, None]
    assert second.messages[-1]["loss"] is False


def test_llava_takes_a_list_and_rows_without_an_image(folder: Path):
    turns = [{"from": "human", "value": "<image><image>?"}, {"from": "gpt", "value": "a cat"}]
    text = [{"from": "human", "value": "?"}, {"from": "gpt", "value": "a cat"}]
    rows = [{"conversations": turns, "image": ["b.png", "a.png"]}, {"conversations": text}]
    first, second = load_samples(write_rows(folder, *rows))
    assert [Path(part["image"]).name for part in first.media("image")] == ["b.png", "a.png"]
    assert second.media("image") == []


@pytest.mark.parametrize(("weight", "loss"), [(0, False), (1, None), (None, None)])
def test_openais_weight_says_which_answers_carry_loss(folder: Path, weight: int | None, loss: bool | None):
    [sample] = load_samples(write_rows(folder, {"messages": [user("1"), {**ANSWER, "weight": weight}]}))
    assert sample.messages[-1].get("loss") is loss


def test_a_weight_that_is_no_switch_is_refused(folder: Path):
    with pytest.raises(ValueError, match=r"`messages\[1\].weight`: expected 0 or 1, got 0.5"):
        load_samples(write_rows(folder, {"messages": [user("1"), {**ANSWER, "weight": 0.5}]}))
