"""Talking to a model: questions with media, and answers, over several turns."""

from pathlib import Path
from typing import Any

from moka_peft.data import Collator, MediaOptions, Sample
from moka_peft.data.media import existing
from moka_peft.data.media.options import DEFAULTS
from moka_peft.training.answers import generate_answers


class Conversation:
    """One conversation with a model; media attached since the last question go with the next one.

    media: how files are decoded; as in training, or the model sees and hears what it does not know.
    """

    def __init__(self, model: Any, processor: Any, max_new_tokens: int, media: MediaOptions = DEFAULTS):
        self.model, self.processor, self.max_new_tokens = model, processor, max_new_tokens
        self.collator = Collator(processor, media=media)
        self.reset()

    def reset(self) -> None:
        """Forgets all turns and what is attached."""
        self.messages: list[dict[str, Any]] = []
        self.attached: list[dict[str, Any]] = []

    def attach(self, kind: str, path: Path) -> None:
        """Attaches an "image", "audio" or "video" file to the next question.

        Raises FileNotFoundError for a missing file, ValueError for a kind that the model does not take.
        """
        if kind not in self.collator.placeholders:
            known = ", ".join(self.collator.placeholders) or "text only"
            raise ValueError(f"`{kind}` is nothing this model takes: expected {known}. Leave {path} out.")
        self.attached.append({"type": kind, kind: existing(path, kind)})

    def ask(self, question: str) -> str:
        """Answers a question greedily. One that fails (an unreadable file) leaves the turns before it as they
        were and drops what was attached."""
        content = [*self.attached, {"type": "text", "text": question}]
        self.attached = []
        turns = [*self.messages, {"role": "user", "content": content}]
        sample = Sample("question", [*turns, {"role": "assistant", "content": ""}])
        [answer] = generate_answers(
            self.model,
            self.processor,
            self.collator.collate_prompts,
            [sample],
            batch_size=1,
            max_new_tokens=self.max_new_tokens,
        )
        self.messages = [*turns, {"role": "assistant", "content": answer}]
        return answer
