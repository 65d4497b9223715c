"""The sample that everything else reads."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

MEDIA = ("image", "video", "audio")


@dataclass(frozen=True)
class Sample:
    """One conversation with its media, in OpenAI's message form.

    messages: `{"role", "content"}`; content is a string or a list of parts `{"type": "text", "text"}`,
    `{"type": "image", "image": PIL image}`, `{"type": "video", "video": frames}`,
    `{"type": "audio", "audio": float32 mono array, "sample_rate_hz"}` (the rate for arrays only). In place of
    each, a path, bytes or a URL; an audio may be a video file, of which it is the sound track.
    The last message is the assistant's answer; `"loss": False` in an assistant's message keeps it out of the loss.
    `group` and `kind` name what the question tests; `where` is the file and row that the sample was read from.
    """

    id: str
    messages: list[dict[str, Any]]
    group: str | None = None
    kind: str | None = None
    where: str = field(default="", compare=False)

    @property
    def place(self) -> str:
        """What an error about the whole conversation begins with: file, row and field where it was read from one."""
        return f"{self.where}, `messages`" if self.where else f"sample `{self.id}`"

    @property
    def answer(self) -> str:
        """The text of the last message."""
        return text_of(self.messages[-1])

    def media(self, type: str) -> list[dict[str, Any]]:
        """The parts of one media type ("image", "video" or "audio"), in reading order."""
        return [part for message in self.messages for part in parts_of(message) if part["type"] == type]


def parts_of(message: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A message's content as a list of parts; a string is one text part."""
    content = message["content"]
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def text_of(message: Mapping[str, Any]) -> str:
    """A message's text without its media."""
    return "".join(part["text"] for part in parts_of(message) if part["type"] == "text")


def check_placeholders(sample: Sample, rendered: str, placeholders: Mapping[str, str]) -> None:
    """Raises ValueError where a rendered prompt has not exactly one placeholder per medium.

    placeholders: {"image": "<image>", ...}, of the media that the model takes. A tag typed inside the text is the
    usual cause.
    """
    attached = Counter(part["type"] for message in sample.messages for part in parts_of(message))
    if refused := [type for type in MEDIA if attached[type] and type not in placeholders]:
        raise ValueError(
            f"{sample.place}: {attached[refused[0]]} {refused[0]} attached, but the processor takes "
            f"{', '.join(placeholders) or 'no media'}. Remove it, or use a model that takes {refused[0]}."
        )
    for type, placeholder in placeholders.items():
        if (found := rendered.count(placeholder)) != attached[type]:
            raise ValueError(
                f"{sample.place}: {found} `{placeholder}` in the text, {attached[type]} {type} attached. "
                f"Write one `{placeholder}` per {type}, or attach media as content parts and write no tag."
            )


def check_lengths(samples: Sequence[Sample], lengths: Sequence[int], max_length: int | None) -> None:
    """Raises ValueError for the first sample of more tokens than allowed; samples are never cut."""
    for sample, length in zip(samples, lengths, strict=True):
        if max_length is not None and length > max_length:
            raise ValueError(
                f"{sample.place}: sample has {length} tokens, expected at most {max_length}. "
                "Shorten it, lower the limits in `data.media`, raise `training.max_length`, or skip bad samples."
            )
