"""Processors without a chat template that take the answer as `suffix`, such as PaliGemma's: one turn only."""

from collections.abc import Sequence
from typing import Any

from moka_peft.data.processor_inputs import parameters_of
from moka_peft.data.samples import Sample, text_of


def takes_suffix(processor: Any) -> bool:
    """Whether the answer is given apart from the text."""
    known = any(cls.__name__ == "PaliGemmaProcessor" for cls in type(processor).__mro__)
    return not getattr(processor, "chat_template", None) and (known or "suffix" in parameters_of(processor))


def suffix_texts(samples: Sequence[Sample], image: str) -> tuple[list[str], list[str]]:
    """Question and answer of every sample, its images in front.

    Raises ValueError for other than one turn, and for a sample without an image: PaliGemma's processor writes its
    first token behind the images, and without any into the middle of the text.
    """
    for sample in samples:
        roles = [message["role"] for message in sample.messages]
        if roles != ["user", "assistant"]:
            raise ValueError(
                f"sample `{sample.id}` has the roles {', '.join(roles)}: this processor has no chat template and takes "
                "one question and its answer. Split the conversation, or use a model with a chat template."
            )
        if not sample.media("image"):
            raise ValueError(f"sample `{sample.id}` has no image: this processor takes none without. Remove it.")
    questions = [image * len(sample.media("image")) + text_of(sample.messages[0]) for sample in samples]
    return questions, [sample.answer for sample in samples]
