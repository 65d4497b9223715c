"""Where the bytes of a medium come from: a file, bytes, a data URL, or an address on the net."""

import base64
import binascii
import io
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes, urlsplit

from moka_peft.data.media.options import MediaOptions

Encoded = str | Path | bytes


def existing(path: str | Path, what: str) -> Path:
    """The path itself; raises FileNotFoundError, naming `what` was looked for, where no such file exists."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{what} `{path}` not found. Correct the path, or put the file there.")
    return path


@dataclass(frozen=True)
class Opened:
    """An encoded medium, and what an error calls it."""

    name: str
    content: Path | bytes

    def file(self) -> Any:
        """What decoders open: the path as a string, or the bytes as a file."""
        return str(self.content) if isinstance(self.content, Path) else io.BytesIO(self.content)

    def size(self) -> int:
        return self.content.stat().st_size if isinstance(self.content, Path) else len(self.content)


def open_encoded(medium: Encoded, what: str) -> Opened:
    """A medium ready to be decoded. Raises FileNotFoundError or ValueError where there is nothing to decode."""
    if isinstance(medium, bytes):
        opened = Opened(f"{what} of {len(medium)} bytes", medium)
    else:
        path = existing(medium, what)
        opened = Opened(f"{what} `{path}`", path)
    if not opened.size():
        raise ValueError(f"{opened.name} is empty: expected a file, got 0 bytes. Replace it, or remove the sample.")
    return opened


def is_url(medium: Any) -> bool:
    """Whether a reference is an address that has to be fetched."""
    return isinstance(medium, str) and medium.lower().startswith(("http://", "https://"))


def decode_data_url(url: str) -> bytes:
    """The bytes inside a `data:` URL. Raises ValueError where it is none."""
    head, comma, body = url.partition(",")
    try:
        if not comma:
            raise ValueError("it has no comma")
        return base64.b64decode(body, validate=True) if head.endswith(";base64") else unquote_to_bytes(body)
    except (binascii.Error, ValueError) as error:
        raise ValueError(
            f"expected a data URL (data:image/png;base64,...), got `{url[:40]}`: {error}. Encode the file again."
        ) from error


def check_url(url: str, options: MediaOptions) -> None:
    """Raises ValueError where addresses may not be fetched."""
    if not options.allow_urls:
        raise ValueError(
            f"`{url[:200]}` is on the net: expected a file. Download it, or set `allow_urls: true` in `data.media`."
        )


def fetch(url: str, options: MediaOptions) -> bytes:
    """What an http(s) address holds. Raises ValueError where it cannot be had within the limits."""
    check_url(url, options)
    try:
        with urllib.request.urlopen(url, timeout=options.url_timeout_seconds) as response:
            content = response.read(options.max_url_bytes + 1)
    except (urllib.error.URLError, OSError, ValueError) as error:
        host = urlsplit(url).netloc
        raise ValueError(f"`{url[:200]}` cannot be fetched: {error}. Look at {host}, or download the file.") from error
    if len(content) > options.max_url_bytes:
        raise ValueError(
            f"`{url[:200]}` is too large: expected at most {options.max_url_bytes} bytes, got more. "
            "Raise `max_url_bytes`, or remove the sample."
        )
    return content
