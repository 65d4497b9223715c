"""Containers of rows: the same samples from each, streamed or held, in this process or another."""

import io
import json
import multiprocessing
import os
import pickle
import sys
import tarfile
from pathlib import Path
from typing import Any

import datasets
import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image
from torch.utils.data import ConcatDataset, DataLoader

from moka_peft.data import Sample, load_samples
from moka_peft.data.containers.paths import expand_braces, find_files

CONTAINERS = ("json", "jsonl", "parquet", "datasets", "tar")
ROWS = 7
ANSWER = {"role": "assistant", "content": "a cat"}


def picture(shade: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (4, 3), (shade, shade, shade)).save(file, "PNG")
    return file.getvalue()


def row(number: int, image: Any) -> dict[str, Any]:
    question = f'<image>What "is" this, [{number}]? \u00e9\\n'
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": f"a {number}"}]
    return {"id": str(number), "messages": messages, "images": [image], "group": "even" if number % 2 == 0 else "odd"}


def write(kind: str, folder: Path, numbers: range, name: str = "rows") -> Path:
    """Writes rows with pictures: as files for JSON, as bytes in the others."""
    path = folder / f"{name}.{kind}"
    if kind in ("json", "jsonl"):
        for number in numbers:
            (folder / f"{number}.png").write_bytes(picture(number))
        rows = [row(number, f"{number}.png") for number in numbers]
        indented = json.dumps(rows, indent=2, ensure_ascii=False)
        path.write_text(indented if kind == "json" else "\n\n".join(map(json.dumps, rows)), encoding="utf-8")
    elif kind == "tar":
        with tarfile.open(path, "w") as tar:
            for number in numbers:
                text = json.dumps(row(number, "png")).encode()
                for ending, content in (("png", picture(number)), ("json", text)):
                    info = tarfile.TarInfo(f"set/{number:04}.{ending}")
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))
    else:
        rows = [row(number, {"bytes": picture(number), "path": None}) for number in numbers]
        if kind == "parquet":
            pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path, row_group_size=3)
        else:
            features = datasets.Features(
                id=datasets.Value("string"),
                messages=[{"role": datasets.Value("string"), "content": datasets.Value("string")}],
                images=[datasets.Image()],
                group=datasets.Value("string"),
            )
            datasets.Dataset.from_list(rows, features=features).save_to_disk(path)
    return path


def facts(sample: Sample) -> tuple[Any, ...]:
    """A sample with its picture as bytes."""
    (part,) = sample.media("image")
    image = part["image"]
    content = image if isinstance(image, bytes) else Path(image).read_bytes()
    return sample.id, sample.answer, sample.messages[0]["content"][1], sample.group, content


@pytest.fixture(scope="module", params=CONTAINERS)
def path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(request.param, tmp_path_factory.mktemp(request.param), range(ROWS))


def test_streamed_equals_held(path: Path):
    streamed = load_samples({"path": path, "streaming": True})
    held = load_samples({"path": path, "streaming": False})
    assert len(streamed) == len(held) == ROWS
    assert [streamed[i] for i in (5, 0, 6, 2)] == [held[i] for i in (5, 0, 6, 2)]
    assert list(streamed) == list(held) == list(load_samples(path))
    assert streamed[-1] == held[-1] and streamed[1:3] == held[1:3]
    assert sum(streamed.shard_sizes) == sum(held.shard_sizes) == ROWS  # type: ignore[attr-defined]


def test_all_containers_hold_the_same_samples(path: Path):
    read = [facts(sample) for sample in load_samples(path)]
    text = {"type": "text", "text": 'What "is" this, [3]? \u00e9\\n'}
    assert read[3] == ("3", "a 3", text, "odd", picture(3))
    assert len({fact[4] for fact in read}) == ROWS


def test_where_names_file_and_row(path: Path):
    sample = load_samples(path)[3]
    assert sample.where == f"{path}, member set/0003" if path.suffix == ".tar" else f"{path}, row 4"


def first(samples: list[Sample]) -> list[tuple[Any, ...]]:
    return [facts(sample) for sample in samples]


def read_in_workers(samples: Any, start: str) -> list[tuple[Any, ...]]:
    loader = DataLoader(
        samples,
        batch_size=2,
        collate_fn=first,
        num_workers=2,
        multiprocessing_context=multiprocessing.get_context(start),
    )
    return [fact for batch in loader for fact in batch]


def test_samples_go_to_workers(path: Path):
    samples = load_samples({"path": path, "streaming": True})
    _ = samples[0]  # what was read before must not disturb the workers
    assert read_in_workers(samples, "fork") == first(list(samples))


@pytest.mark.slow
def test_samples_go_to_new_interpreters(tmp_path: Path):
    both = ConcatDataset([load_samples({"path": write(k, tmp_path, range(4)), "streaming": True}) for k in CONTAINERS])
    assert read_in_workers(both, "spawn") == first([both[i] for i in range(len(both))])


def test_pickled_and_small(path: Path):
    samples = load_samples({"path": path, "streaming": True})
    read, packed = list(samples), pickle.dumps(samples)
    assert list(pickle.loads(packed)) == read
    if not path.is_dir():
        assert not any(picture(number) in packed for number in range(ROWS))


def test_held_rows_are_few(tmp_path: Path):
    """A line takes 8 bytes, whatever is in it."""
    lines = [json.dumps({"messages": [{"role": "user", "content": "x" * 1000}]})] * 2000
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))
    samples = load_samples({"path": tmp_path / "rows.jsonl", "streaming": True})
    assert len(pickle.dumps(samples)) < 2000 * 8 + 4000 and sys.getsizeof(samples) < 1000


@pytest.mark.parametrize("kind", ["jsonl", "parquet", "tar"])
def test_shards_are_one_sequence(kind: str, tmp_path: Path):
    for shard in range(3):
        write(kind, tmp_path, range(shard * 3, shard * 3 + 2 + shard % 2), f"part-{shard:02}")
    from_braces = load_samples(str(tmp_path / f"part-{{00..02}}.{kind}"))
    assert [sample.id for sample in from_braces] == ["0", "1", "3", "4", "5", "6", "7"]
    assert from_braces.shard_sizes == [2, 3, 2]  # type: ignore[attr-defined]
    listed = [str(tmp_path / f"part-00.{kind}"), str(tmp_path / f"part-0[12].{kind}")]
    for source in (tmp_path, str(tmp_path / f"*.{kind}"), listed):
        assert list(load_samples({"path": source})) == list(from_braces)


def test_braces():
    assert expand_braces("s-{098..101}-{a,b}.tar")[::3] == ["s-098-a.tar", "s-099-b.tar", "s-101-a.tar"]
    assert expand_braces("{x}.json") == ["{x}.json"]


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("gone-{0..2}.tar", FileNotFoundError, r"gone-0\.tar` not found"),
        ("*.tar", FileNotFoundError, r"\*\.tar` not found"),
        (".", ValueError, r"is unclear: expected files of one of .*, got \.json, \.jsonl"),
    ],
)
def test_files_that_are_not_there(tmp_path: Path, name: str, error: type[Exception], message: str):
    for ending in ("json", "jsonl"):
        (tmp_path / f"a.{ending}").touch()
    with pytest.raises(error, match=message):
        find_files(str(tmp_path / name))


def test_media_start_at_the_given_folder(tmp_path: Path):
    (tmp_path / "media").mkdir()
    (tmp_path / "media" / "a.png").write_bytes(picture(9))
    (tmp_path / "rows.jsonl").write_text(json.dumps(row(1, "a.png")))
    with pytest.raises(FileNotFoundError, match=r"relative ones start at .*; `folder` in the data source changes that"):
        load_samples(tmp_path / "rows.jsonl")
    (sample,) = load_samples({"path": tmp_path / "rows.jsonl", "folder": tmp_path / "media"})
    assert facts(sample)[4] == picture(9)


@pytest.mark.parametrize("name", ["png", ".png", "000.png"])
def test_tar_members_are_found_by_ending_or_name(tmp_path: Path, name: str):
    path = write_tar(tmp_path, {"json": json.dumps(row(1, name)).encode(), "png": picture(5)})
    assert facts(load_samples(path)[0])[4] == picture(5)


def test_tar_members_fill_tags_that_list_no_file(tmp_path: Path):
    conversation = [{"from": "human", "value": "<image>\n?"}, {"from": "gpt", "value": "a cat"}]
    text = json.dumps({"conversations": conversation}).encode()
    path = write_tar(tmp_path, {"json": text, "left.png": picture(5)})
    assert load_samples(path)[0].media("image") == [{"type": "image", "image": picture(5)}]


def test_tar_of_captions(tmp_path: Path):
    path = write_tar(tmp_path, {"txt": b"a cat\n", "png": picture(5)}, {"png": picture(6), "txt": b"a dog"})
    samples = load_samples({"path": path, "question": "What is it?"})
    assert [sample.answer for sample in samples] == ["a cat", "a dog"]
    assert samples[1].messages[0]["content"] == [
        {"type": "image", "image": picture(6)},
        {"type": "text", "text": "What is it?"},
    ]


def write_tar(folder: Path, *members_of: dict[str, bytes]) -> Path:
    with tarfile.open(folder / "shard.tar", "w") as tar:
        for number, members in enumerate(members_of):
            for ending, content in members.items():
                info = tarfile.TarInfo(f"{number:03}.{ending}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return folder / "shard.tar"


def test_saved_splits_need_a_name(tmp_path: Path):
    saved = datasets.Dataset.from_list([{"messages": row(1, "")["messages"]}])
    datasets.DatasetDict(train=saved, dev=saved).save_to_disk(tmp_path / "both")
    with pytest.raises(ValueError, match="`split` of dataset .*both is wrong: expected one of train, dev, got None"):
        load_samples(tmp_path / "both")


def test_hub_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    saved = datasets.load_from_disk(write("datasets", tmp_path, range(ROWS)))
    monkeypatch.setattr(datasets, "load_dataset", lambda name, config, split: {"test": saved}[split])
    samples = load_samples({"hub": "someone/things", "split": "test"})
    assert facts(samples[2])[4] == picture(2) and samples[2].where == "someone/things, row 3"
    with pytest.raises(ValueError, match="`streaming` of a hub dataset is not supported"):
        load_samples({"hub": "someone/things", "split": "test", "streaming": True})


def test_missing_library_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = write("parquet", tmp_path, range(2))
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(ImportError, match=r"`pyarrow` is not installed. Install it: pip install 'moka-peft\[data\]'"):
        load_samples(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [("[{}, ", "it ends inside a list"), ('{"a": [1]}', "expected one list of rows"), ("", "got an empty file")],
)
def test_broken_streamed_list(tmp_path: Path, text: str, message: str):
    (tmp_path / "rows.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        load_samples({"path": tmp_path / "rows.json", "streaming": True})


def test_an_empty_place_in_a_streamed_list_is_a_bad_row(tmp_path: Path):
    (tmp_path / "rows.json").write_text('[{"messages": []}, , {"messages": []}]')
    samples = load_samples({"path": tmp_path / "rows.json", "streaming": True})
    assert len(samples) == 3
    with pytest.raises(ValueError, match=r"rows\.json, row 2, `row`: not valid JSON"):
        samples[1]


def test_keys_of_other_rows_are_no_keys(tmp_path: Path):
    """A table gives each part all keys; those that it has not itself are null."""
    parts = [{"type": "image", "image": "a.png", "text": None}, {"type": "text", "image": None, "text": "?"}]
    answer = [{"type": "text", "image": None, "text": "a cat"}]
    messages = [{"role": "user", "content": parts}, {"role": "assistant", "content": answer}]
    listed = [{"messages": messages, "loss": None}]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(listed), tmp_path / "rows.parquet")
    (tmp_path / "a.png").write_bytes(picture(1))
    (sample,) = load_samples(tmp_path / "rows.parquet")
    image = {"type": "image", "image": str(tmp_path / "a.png")}
    assert sample.messages[0]["content"] == [image, {"type": "text", "text": "?"}]
    absent = [{"messages": [{"role": "user", "content": "?", "loss": None}, {**ANSWER, "loss": False}]}]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(absent), tmp_path / "rows.parquet")
    (sample,) = load_samples(tmp_path / "rows.parquet")
    assert [message.get("loss") for message in sample.messages] == [None, False]


def test_recordings_of_a_dataset_stay_encoded(tmp_path: Path):
    messages = [{"role": "user", "content": "<audio>?"}, ANSWER]
    rows = [{"messages": messages, "audio": {"bytes": b"sound", "path": None}}]
    saved = datasets.Dataset.from_list(rows).cast_column("audio", datasets.Audio())  # type: ignore[arg-type]
    saved.save_to_disk(tmp_path / "saved")
    assert load_samples(tmp_path / "saved")[0].media("audio") == [{"type": "audio", "audio": b"sound"}]


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="the system does not list open files")
def test_no_file_stays_open(path: Path):
    samples = load_samples({"path": path, "streaming": True})
    assert len(list(samples)) == ROWS
    still_open = [os.path.realpath(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd")]
    assert str(path) not in still_open
