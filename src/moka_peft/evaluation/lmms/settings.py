"""How lmms-eval wants an answer to be generated, read from a task's `generation_kwargs`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

BLANK_LINE = "\n\n"
"""Where lmms-eval ends an answer if a task names nothing; as its own models, we do not, or reasons would be cut."""


@dataclass(frozen=True)
class Settings:
    """max_new_tokens: of the longest answer. until: texts before which an answer ends."""

    max_new_tokens: int
    until: tuple[str, ...] = ()

    def cut(self, answer: str) -> str:
        """The answer up to the first of the texts that end it."""
        for end in self.until:
            answer = answer.split(end)[0]
        return answer.strip()


def read_settings(wanted: Mapping[str, Any], task: str, max_new_tokens: int) -> Settings:
    """The settings of a task; max_new_tokens: where it names none.

    Raises ValueError for sampling and for beams: answers are greedy.
    """
    heat = wanted.get("temperature", 1 if wanted.get("do_sample") else 0) or 0
    samples, beams = heat > 0 and wanted.get("do_sample") is not False, wanted.get("num_beams") or 1
    if samples or beams > 1:
        got = f"{beams} beams" if beams > 1 else f"temperature {heat}"
        raise ValueError(
            f"`generation_kwargs` of {task}: expected greedy answers, got {got}. Add "
            "`--gen_kwargs do_sample=False,temperature=0,num_beams=1`."
        )
    until = wanted.get("until") or ()
    ends = [end for end in ((until,) if isinstance(until, str) else until) if end and end != BLANK_LINE]
    return Settings(wanted.get("max_new_tokens") or max_new_tokens, tuple(ends))
