"""The model that lmms-eval runs: an adapter, or a base model, asked as in training. Only lmms-eval imports this."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from lmms_eval.api.model import lmms  # pyright: ignore[reportMissingImports]
from tqdm import tqdm

from moka_peft.data import Collator, Sample
from moka_peft.evaluation.lmms.conversation import message_of, sample_of
from moka_peft.evaluation.lmms.settings import Settings, read_settings
from moka_peft.evaluation.lmms.task import doc_to_messages, is_ours
from moka_peft.training import generate_answers, load_adapted, load_model
from moka_peft.training.processes import is_sharded, rank, world_size
from moka_peft.training.reading import media_of

Read = tuple[Settings, Callable[[], Sample]]  # a request: how to answer it, and what makes its sample


class Moka(lmms):
    """`--model moka`: takes messages, with media where a task puts them.

    pretrained: a run's folder or any adapter folder; else a base model, by folder or hub id, opened in `dtype`.
    batch_size: questions that are answered together. device: by default this process's GPU, or the CPU.
    max_new_tokens: of an answer where a task names no number.
    """

    is_simple = False

    def __init__(
        self,
        pretrained: str,
        batch_size: int | str = 1,
        device: str | None = None,
        max_batch_size: int | None = None,
        max_new_tokens: int = 128,
        dtype: str | None = None,
    ):
        super().__init__()
        if not str(batch_size).isdecimal() or max_batch_size is not None:
            got = batch_size if max_batch_size is None else f"{batch_size}, at most {max_batch_size}"
            raise ValueError(f"`--batch_size` is wrong: expected a number, got {got}. Give one that fits the memory.")
        if is_sharded():
            raise ValueError("the model is to be sharded: expected a whole one in each process. Launch without it.")
        self.accelerator = Accelerator()  # lmms-eval gathers results with it
        self._rank, self._world_size = rank(), world_size()
        self.batch_size, self.max_new_tokens = int(batch_size), max_new_tokens
        self.model, self.processor = _open(pretrained, dtype)
        if device is not None and self.world_size == 1:
            self.model.to(device)
        self.device: torch.device = self.model.device
        self.collator = Collator(self.processor, media=media_of(Path(pretrained)))

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """An answer to each request; those of the same length are asked together."""
        read = [self.read(request) for request in requests]
        answers = [""] * len(read)
        with tqdm(total=len(read), disable=self.rank != 0, desc="Answers") as progress:
            for places in _batches([settings for settings, _ in read], self.batch_size):
                said = self._answer([read[place] for place in places])
                for place, answer in zip(places, said, strict=True):
                    answers[place] = read[place][0].cut(answer)
                progress.update(len(places))
        return answers

    def _answer(self, asked: Sequence[Read]) -> list[str]:
        return generate_answers(
            self.model,
            self.processor,
            self.collator.collate_prompts,
            [make() for _, make in asked],
            batch_size=self.batch_size,
            max_new_tokens=asked[0][0].max_new_tokens,
        )

    def read(self, request: Any) -> Read:
        """How lmms-eval wants a request answered, and what opens its media when its turn comes."""
        _, doc_to_messages, wanted, doc_id, task, split = request.args
        settings = read_settings(wanted, task, self.max_new_tokens)
        return settings, lambda: sample_of(f"{task} {doc_id}", doc_to_messages(self.task_dict[task][split][doc_id]))

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        raise NotImplementedError(_CANNOT.format("likelihoods", "multiple choice by likelihood", "loglikelihood"))

    def generate_until_multi_round(self, requests: Sequence[Any]) -> list[str]:
        raise NotImplementedError(_CANNOT.format("several rounds", "rounds", "generate_until_multi_round"))


class MokaSimple(Moka):
    """The same for tasks that have media apart from the text (`--force_simple`): media come first, or at their tags."""

    is_simple = True

    def read(self, request: Any) -> Read:
        text, wanted, doc_to_visual, doc_id, task, split = request.args
        settings = read_settings(wanted, task, self.max_new_tokens)

        def make() -> Sample:
            doc = self.task_dict[task][split][doc_id]
            if is_ours(doc):
                return sample_of(f"{task} {doc_id}", doc_to_messages(doc))
            media = (doc_to_visual(doc) if doc_to_visual else None) or ()
            return sample_of(f"{task} {doc_id}", [message_of(text, media)])

        return settings, make


_CANNOT = "moka answers no {}: expected a task that generates, got one of {} (`output_type: {}`). Choose another task."


def _open(pretrained: str, dtype: str | None) -> tuple[Any, Any]:
    """The model and its processor, of an adapter or of a base model."""
    if not (Path(pretrained) / "adapter_config.json").is_file():
        return load_model(pretrained, dtype=dtype or "float32")
    if dtype is not None:
        raise ValueError(f"`dtype` is of base models: expected none for the adapter {pretrained}, got {dtype}.")
    return load_adapted(Path(pretrained))


def _batches(settings: Sequence[Settings], size: int) -> list[list[int]]:
    """The places of the requests in batches of one length of answers, in their order."""
    groups: dict[int, list[int]] = {}
    for place, one in enumerate(settings):
        groups.setdefault(one.max_new_tokens, []).append(place)
    return [places[start : start + size] for places in groups.values() for start in range(0, len(places), size)]
