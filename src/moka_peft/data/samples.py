"""The sample that everything else reads."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

MEDIA = ("image", "video", "audio")


@dataclass(frozen=True)
class Sample:
    """One conversation with its media, in OpenAI's message form.

    messages: `{"role", "content"}`; content is a string or a list of parts `{"type": "text", "text"}`,
    `{"type": "image", "image": PIL image or path}`, `{"type": "video", "video": path or frames}`,
    `{"type": "audio", "audio": path or float32 mono array, "sample_rate_hz"}` (the rate for arrays only).
    The last message is the assistant's answer. `group` and `kind` name what the question tests.
    """

    id: str
    messages: list[dict[str, Any]]
    group: str | None = None
    kind: str | None = None

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
            f"sample `{sample.id}`: {attached[refused[0]]} {refused[0]} attached, but the processor takes "
            f"{', '.join(placeholders) or 'no media'}. Remove it, or use a model that takes {refused[0]}."
        )
    for type, placeholder in placeholders.items():
        if (found := rendered.count(placeholder)) != attached[type]:
            raise ValueError(
                f"sample `{sample.id}`: {found} `{placeholder}` in the text, {attached[type]} {type} attached. "
                f"Write one `{placeholder}` per {type}, or attach media as content parts and write no tag."
            )
