"""Data that is wrong, one kind at a time: how it is made, and what an error must say of it."""

import base64
import io
import json
import struct
import tarfile
import tempfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av
import numpy as np
import soundfile
from PIL import Image

PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 255, (32, 128, 3), dtype=np.uint8))
ANSWER = {"role": "assistant", "content": "a cat"}


@dataclass(frozen=True)
class Malformed:
    """A data file with one bad row between two good ones, unless `good` says otherwise.

    row: what the bad row holds; or `write` makes the whole data file. prepare: makes the media that it names.
    field, problem, remedy: what the error says.
    """

    name: str
    field: str
    problem: str
    remedy: str
    row: Any = None
    prepare: Callable[[Path], Any] = lambda folder: None
    write: Callable[[Path], Path] | None = None
    place: str = "row 2"
    media: dict[str, Any] = field(default_factory=dict)
    good: int = 2

    def make(self, folder: Path) -> Path:
        """Writes the data file and its media, and returns its path."""
        PICTURE.save(folder / "good.png")
        self.prepare(folder)
        return self.write(folder) if self.write else write_lines(folder, GOOD, self.row, GOOD)


def asked(content: Any, **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": content}, ANSWER], **more}


def shown(type: str, name: str) -> dict[str, Any]:
    return asked([{"type": type, type: name}, {"type": "text", "text": "What?"}])


GOOD = shown("image", "good.png")


def write_lines(folder: Path, *rows: Any) -> Path:
    lines = [row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows]
    (folder / "rows.jsonl").write_bytes(b"\n".join(lines))
    return folder / "rows.jsonl"


def content(name: str, value: bytes | Callable[[], bytes]) -> Callable[[Path], Any]:
    """Writes a file, with bytes that are made only then."""
    return lambda folder: (folder / name).write_bytes(value if isinstance(value, bytes) else value())


def saved(image: Image.Image, format: str) -> bytes:
    file = io.BytesIO()
    image.save(file, format)
    return file.getvalue()


def wav(frames: int) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, np.zeros(frames, dtype=np.float32), 16_000, format="WAV")
    return file.getvalue()


def mp4(frames: int = 40, *, index_first: bool = False) -> bytes:
    """A silent video; with `index_first`, a player can begin before it has all of it."""
    with tempfile.TemporaryDirectory() as folder:
        options = {"movflags": "faststart"} if index_first else {}
        with av.open(f"{folder}/a.mp4", "w", options=options) as container:
            stream = container.add_stream("mpeg4", rate=10)
            stream.width, stream.height, stream.pix_fmt = 32, 16, "yuv420p"
            for shade in range(frames):
                picture = np.full((16, 32, 3), shade, dtype=np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            container.mux(stream.encode(None))
        return Path(folder, "a.mp4").read_bytes()


def huge_png() -> bytes:
    """A PNG that says it is 60000 pixels wide and high: a few bytes that would need 10 GB."""
    header = b"IHDR" + struct.pack(">II", 60_000, 60_000) + bytes([8, 2, 0, 0, 0])
    whole = saved(PICTURE, "PNG")
    return whole[:12] + header + struct.pack(">I", zlib.crc32(header)) + whole[33:]


def cut(whole: bytes, share: float) -> bytes:
    return whole[: int(len(whole) * share)]


def write_tar(folder: Path, *samples: dict[str, bytes]) -> Path:
    with tarfile.open(folder / "shard.tar", "w") as tar:
        for number, members in enumerate(samples):
            for ending, value in members.items():
                info = tarfile.TarInfo(f"{number:03}.{ending}")
                info.size = len(value)
                tar.addfile(info, io.BytesIO(value))
    return folder / "shard.tar"


def in_tar(**members: bytes) -> Callable[[Path], Path]:
    png = saved(PICTURE, "PNG")
    good = {"json": json.dumps(shown("image", "png")).encode(), "png": png}
    return lambda folder: write_tar(folder, good, members, good)


def write_cut_tar(folder: Path) -> Path:
    path = in_tar(json=json.dumps(asked("What?")).encode())(folder)
    path.write_bytes(cut(path.read_bytes(), 0.2))
    return path


def in_parquet(*rows: dict[str, Any]) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows)), folder / "rows.parquet")
        return folder / "rows.parquet"

    return write


def turns(*roles: str) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": "Hi"} for role in roles]}


def in_table(image: dict[str, Any]) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": "<image>What?"}, ANSWER], "images": [image]}


IMAGE, AUDIO, VIDEO = (f"messages[0].content[0].{type}" for type in ("image", "audio", "video"))
TEXT = "messages[0].content"
PNG = {"bytes": saved(PICTURE, "PNG"), "path": None}
# fmt: off
MALFORMED = [
    # media that cannot be decoded
    Malformed("torn JPEG", IMAGE, "cannot be read: .*truncated", "replace or convert", shown("image", "a.jpg"),
              content("a.jpg", lambda: cut(saved(PICTURE, "JPEG"), 0.6))),
    Malformed("image of no bytes", IMAGE, "is empty", "Replace it", shown("image", "a.png"), content("a.png", b"")),
    Malformed("text called .png", IMAGE, "cannot be read", "image viewer", shown("image", "a.png"),
              content("a.png", b"no")),
    Malformed("too many pixels", IMAGE, "too many pixels", "Make it smaller", shown("image", "a.png"),
              content("a.png", huge_png)),
    Malformed("pixels that are fractions", IMAGE, "without an agreed range", "convert it", shown("image", "a.tif"),
              lambda folder: Image.new("F", (8, 8)).save(folder / "a.tif")),
    Malformed("missing image", IMAGE, "not found", "Correct the path", shown("image", "gone.png")),
    Malformed("audio without frames", AUDIO, "is empty", "Remove", shown("audio", "a.wav"),
              content("a.wav", lambda: wav(0))),
    Malformed("torn wav", AUDIO, "truncated", "Copy or download", shown("audio", "a.wav"),
              content("a.wav", lambda: cut(wav(4000), 0.5))),
    Malformed("text called .wav", AUDIO, "cannot be read", "Convert it to WAV", shown("audio", "a.wav"),
              content("a.wav", b"no")),
    Malformed("missing recording", AUDIO, "not found", "Correct the path", shown("audio", "gone.wav")),
    Malformed("picture as a recording", AUDIO, "no sound track|cannot be read", "[Rr]emove",
              shown("audio", "good.png")),
    Malformed("mp4 without its index", VIDEO, "cannot be read", "Convert it", shown("video", "a.mp4"),
              content("a.mp4", lambda: cut(mp4(), 0.2))),
    Malformed("torn mp4", VIDEO, "truncated", "Copy", shown("video", "a.mp4"),
              content("a.mp4", lambda: cut(mp4(index_first=True), 0.7))),
    Malformed("video without pictures", VIDEO, "no picture track", "Load it as audio", shown("video", "a.wav"),
              content("a.wav", lambda: wav(4000))),
    Malformed("sound of a silent video", "messages[0].content[1].audio", "no sound track", "Remove the audio",
              shown("video", "a.mp4"), content("a.mp4", mp4), media={"video_sound": True}),
    # media that do not match the text
    Malformed("two tags, one file", "images", "2 `<image>` in the text, 1 image", "Write one `<image>` per file",
              asked("<image><image>?", images=["good.png"])),
    Malformed("image without a tag", "image", "0 `<image>` in the text, 1 image", "Write one `<image>` per file",
              {"conversations": [{"from": "human", "value": "?"}, {"from": "gpt", "value": "!"}], "image": "good.png"}),
    Malformed("tag typed in the answer", "messages[1].content", "an answer holds `<image>`", "Write it differently",
              {"messages": [{"role": "user", "content": "<image>?"}, {"role": "assistant", "content": "an <image>"}],
               "images": ["good.png"]}),
    Malformed("tag typed in a question", "images", "1 `<image>` in the text, 0 image", "correct the list",
              asked("What does <image> stand for?")),
    Malformed("image beside images", "image", "stands beside `images`", "Remove the other",
              asked("<image>?", images=["good.png"], image="good.png")),
    # conversations
    Malformed("answer first", "messages[0].role", "expected a message of the user here", "add the missing one",
              turns("assistant", "user", "assistant")),
    Malformed("two questions in a row", "messages[1].role", "of the assistant here, got user", "Join messages",
              turns("user", "user", "assistant")),
    Malformed("system message later", "messages[2].role", "at most one system", "Join messages",
              turns("user", "assistant", "system", "user", "assistant")),
    Malformed("unknown role", "messages[0].role", "got 'human'", "Correct the role", turns("human", "assistant")),
    Malformed("no answer", "messages[0].role", "got user", "Add the answer", turns("user")),
    Malformed("empty question", TEXT, "is empty", "Add it", asked("  ")),
    Malformed("empty answer", "messages[1].content", "is empty", "Add it",
              {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": ""}]}),
    Malformed("too long", "messages", "tokens, expected at most 100", "Shorten it", asked("word " * 200)),
    # types
    Malformed("line that is not UTF-8", "line 2", "not UTF-8", "Save the file as UTF-8", b'{"messages": "\xff"}'),
    Malformed("line that is not JSON", "line 2", "not valid JSON", "Correct the file", b'{"messages": ['),
    Malformed("row that is a number", "row", "expected an object .* got int", "Correct the row", 3),
    Malformed("messages as text", "messages", "expected a list of messages", "Give a question", {"messages": "Hi"}),
    Malformed("row without messages", "messages", "got None", "Give a question", {"text": "Hi"}),
    Malformed("messages beside conversations", "conversations", "stands beside `messages`", "Set `format`",
              asked("Hi", conversations=[])),
    Malformed("content that is a number", TEXT, "got 5", "Write the message as text", asked(5)),
    Malformed("unknown content type", f"{TEXT}[0].type", "got 'img'", "Use one of these", asked([{"type": "img"}])),
    Malformed("image that is a number", IMAGE, "expected a string, got 3", "Give a path", shown("image", 3)),  # type: ignore
    Malformed("one file where a list belongs", "images", "expected a list", "Put it into",
              asked("<image>", images="good.png")),
    Malformed("loss that is text", "messages[1].loss", "expected true or false", "Correct it",
              {"messages": [{"role": "user", "content": "Hi"}, {**ANSWER, "loss": "no"}]}),
    Malformed("group that is a number", "group", "expected a string, got 7", "Put it into quotes",
              asked("Hi", group=7)),
    # addresses
    Malformed("bad data URL", f"{TEXT}[0].image_url", "expected a data URL", "Encode the file again",
              asked([{"type": "image_url", "image_url": {"url": "data:image/png;base64,@@"}}])),
    Malformed("bad base64", f"{TEXT}[0].input_audio", "expected {data: base64", "Encode the file again",
              asked([{"type": "input_audio", "input_audio": {"data": "?", "format": "wav"}}])),
    Malformed("URL that is not allowed", f"{TEXT}[0].image_url", "is on the net", "allow_urls: true",
              asked([{"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}])),
    Malformed("picture in a data URL that is none", f"{TEXT}[0].image", "cannot be read", "replace or convert",
              asked([{"type": "image_url", "image_url": {"url": "data:;base64," + base64.b64encode(b"no").decode()}}])),
    # tables and tar files
    Malformed("parquet without conversations", "messages", "expected a column", "Rename the column",
              write=in_parquet({"text": "Hi"}), place="row", good=0),
    Malformed("parquet image without bytes or path", "images[0]", "expected a string, got None", "Give a path",
              write=in_parquet(in_table(PNG), in_table({"bytes": None, "path": None}), in_table(PNG))),
    Malformed("tar member missing", IMAGE, "member `gone.png` is missing", "Add it to the tar",
              write=in_tar(json=json.dumps(shown("image", "gone.png")).encode()), place="member 001"),
    Malformed("tar sample without text", "json", "expected a member .json", "Add one", write=in_tar(png=b"x"),
              place="member 001"),
    Malformed("tar caption without a question", "txt", "expected a question", "Set `question`",
              write=in_tar(png=b"x", txt=b"a cat"), place="member 001"),
    Malformed("tar with bad JSON", "json", "not valid JSON", "Correct the file", write=in_tar(json=b"{"),
              place="member 001"),
    Malformed("tar with a bad picture", IMAGE, "cannot be read", "replace or convert", place="member 001",
              write=in_tar(json=json.dumps(shown("image", "png")).encode(), png=b"no")),
    Malformed("torn tar", "all rows", "not a whole tar file", "Copy or write it again", write=write_cut_tar,
              place="all rows", good=0),
]
