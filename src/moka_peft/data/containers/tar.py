"""Tar shards as webdataset writes them: the members of a sample lie together and share a name up to its first dot."""

import io
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from moka_peft.data.containers.contents import parse_json
from moka_peft.data.formats.row import Members, Row
from moka_peft.data.samples import MEDIA

_BLOCK = 512  # bytes
_NEIGHBOURS = 32  # samples: some MB in one stretch
_ENDINGS = {
    "image": ("jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff"),
    "video": ("mp4", "mkv", "webm", "mov", "avi"),
    "audio": ("wav", "flac", "mp3", "ogg", "opus", "m4a"),
}


class Tar:
    """Samples of a tar file; holds 8 bytes for each: where its members begin.

    A sample has a member `.json` with a row in any format, whose media are members too, called by their ending or
    their name. Where it lists none, its tags take the members of their type in order. Or it has the text of an
    answer in `.txt` beside its media, and is asked `question`. Raises ValueError for a file that is no tar.
    """

    def __init__(self, path: Path, question: str | None = None):
        self.path, self.question = path, question
        try:
            starts = list(_sample_starts(path))
        except (tarfile.TarError, EOFError) as error:
            raise ValueError(f"{path}: not a whole tar file: {error}. Copy or write it again, uncompressed.") from error
        self.sizes, self.block = [len(starts) - 1], _NEIGHBOURS
        self._starts = np.array(starts, dtype=np.int64)

    def __len__(self) -> int:
        return self.sizes[0]

    def where(self, index: int) -> str:
        try:
            return f"{self.path}, member {self._members(index).key}"
        except (OSError, tarfile.TarError):
            return f"{self.path}, row {index + 1}"

    def read(self, index: int) -> Row:
        members = self._members(index)
        where = f"{self.path}, member {members.key}"
        if "json" in members.content:
            data = parse_json(members.content["json"], f"{where}, `json`")
        else:
            data = self._captioned(members.content, where)
        if isinstance(data, Mapping):
            data = _with_media(data, members.content)
        return Row(data, where, members.key, members)

    def _members(self, index: int) -> Members:
        start, end = self._starts[index : index + 2].tolist()
        with self.path.open("rb") as file:
            file.seek(start)
            content = file.read(end - start)
        with tarfile.open(fileobj=io.BytesIO(content + bytes(2 * _BLOCK)), mode="r:") as tar:
            files = {m.name: _bytes(tar, m) for m in tar if m.isfile()}
        key = _key(next(iter(files)))
        return Members(key, {name.removeprefix(f"{key}."): content for name, content in files.items()})

    def _captioned(self, content: Mapping[str, bytes], where: str) -> dict[str, Any]:
        """A row for media with a text: the question, and the text as its answer."""
        if "txt" not in content:
            raise ValueError(f"{where}, `json`: expected a member .json or .txt, got {', '.join(content)}. Add one.")
        if self.question is None:
            raise ValueError(f"{where}, `txt`: expected a question that it answers. Set `question` in the data source.")
        tags = "".join(f"<{type}>" * len(_of_type(content, type)) for type in MEDIA)
        messages = [
            {"role": "user", "content": tags + self.question},
            {"role": "assistant", "content": content["txt"].decode("utf-8", errors="replace").strip()},
        ]
        return {"messages": messages}


def _sample_starts(path: Path) -> Iterator[int]:
    """Where each sample's first header lies, and where the last sample ends; reads headers only."""
    end, key = 0, None
    with tarfile.open(path, "r:") as tar:
        while (member := tar.next()) is not None:
            tar.members = []  # pyright: ignore[reportAttributeAccessIssue] - tarfile would keep them all
            if member.isfile():
                if _key(member.name) != key:
                    key = _key(member.name)
                    yield end
            end = member.offset_data + -(-member.size // _BLOCK) * _BLOCK if member.isfile() else member.offset_data
    yield end


def _key(name: str) -> str:
    """A member's name up to the first dot of its last part."""
    folder, slash, base = name.rpartition("/")
    return folder + slash + base.partition(".")[0]


def _bytes(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(member)
    return file.read() if file else b""


def _of_type(content: Mapping[str, bytes], type: str) -> list[str]:
    return [name for name in content if name.rsplit(".", 1)[-1].lower() in _ENDINGS[type]]


def _with_media(data: Mapping[str, Any], content: Mapping[str, bytes]) -> Mapping[str, Any]:
    """The row with the members of each type that its text has tags for and that it does not list itself."""
    turns = str(data.get("messages") or data.get("conversations"))
    untold = [type for type in MEDIA if f"<{type}>" in turns and not data.get(type) and not data.get(f"{type}s")]
    return {**data, **{f"{type}s": names for type in untold if (names := _of_type(content, type))}}
