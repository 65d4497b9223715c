"""A short run of the Trainer in this process, one of several or alone: its losses and what it trained."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor
from transformers import Trainer, TrainerCallback, TrainingArguments, set_seed

from moka_peft import MokaConfig
from moka_peft.training.checkpoint import CheckpointMarking, newest_complete
from moka_peft.training.sharded import save_adapter
from moka_peft.training.token_loss import TokenAveragedTrainer

from .chats import PROJECTORS, Row, build_base, chats_for, collator_for, spec_for, without_media
from .launch import shard_on_cpu


def trajectory(
    out: str, resume: bool = False, seconds_per_step: float = 0, dies_writing: int | None = None, **settings: Any
) -> dict[str, Any]:
    """Trains and gives what all steps logged and the trained weights whole; OUT/final holds the adapter.

    `resume`: from the newest complete checkpoint, of which all are kept. `seconds_per_step`: for who wants to kill
    it at a certain step. `dies_writing`: the rank that is killed before it adds its random state to the second
    checkpoint. `settings`: those of `build_trainer`.
    """
    trainer = build_trainer(out, **settings)
    marking = CheckpointMarking(keep=100)
    marking.trainer = trainer
    for callback in (marking, Reporting(Path(out), seconds_per_step)):
        trainer.add_callback(callback)
    if trainer.args.process_index == dies_writing:
        trainer._save_rng_state = partial(die_at_second, trainer)
    checkpoint, torn = newest_complete(Path(out)) if resume else (None, [])
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    save_adapter(trainer, Path(out) / "final")
    return {
        "resumed": checkpoint and checkpoint.name,
        "torn": torn,
        "losses": logged(trainer, "loss"),
        "norms": logged(trainer, "grad_norm"),
        "units": [name for name, module in trainer.model.named_modules() if isinstance(module, FSDPModule)],
        "weights": {
            plain(name): whole(value) for name, value in trainer.model.named_parameters() if value.requires_grad
        },
    }


def die_at_second(trainer: Trainer, folder: str) -> None:
    """In place of writing a rank's random state; once the first rank has written all of its own."""
    if trainer.state.global_step > trainer.args.save_steps:
        while not (Path(folder) / "trainer_state.json").exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGKILL)
    Trainer._save_rng_state(trainer, folder)


class Reporting(TrainerCallback):
    """Writes the step that begins, and who computes it, to OUT/step-RANK."""

    def __init__(self, out: Path, seconds: float):
        self.out, self.seconds = out, seconds

    def on_step_begin(self, args, state, control, **kwargs):
        path = self.out / f"step-{args.process_index}"
        path.with_suffix(".new").write_text(f"{state.global_step} {os.getpid()}")
        path.with_suffix(".new").replace(path)
        time.sleep(self.seconds)


def build_trainer(
    out: str,
    family: str = "llava",
    method: str = "moka",
    projectors: bool = False,
    adapter: dict[str, Any] | None = None,
    text_only: bool = False,
    blank: bool = False,
    average_tokens: bool = True,
    environment: dict[str, str] | None = None,
    **settings: Any,
) -> Trainer:
    """A Trainer on the family's chats, in order; `settings` go to TrainingArguments.

    `text_only`: some batches have no media, see `without_media`; `blank`: those get an empty one. `average_tokens`
    False: by transformers' own Trainer.
    """
    os.environ.update(environment or {})
    shard_on_cpu()
    model = adapted(family, method, projectors, adapter or {})
    arguments = arguments_for(out, **settings)  # after it: ZeRO-3's would split a model while it is built
    model.get_decoder().config.use_cache = False  # a layer that FSDP recomputes would fill the cache again
    chats = chats_for(family)
    return (TokenAveragedTrainer if average_tokens else Trainer)(
        model=model,
        args=arguments,
        data_collator=collator_for(family, blank),
        train_dataset=without_media(chats) if text_only else chats,
    )


def adapted(family: str, method: str, projectors: bool, adapter: dict[str, Any]) -> PeftModel:
    """The family's tiny model under an adapter whose first delta is far from zero."""
    set_seed(0)
    base = build_base(family)
    also = dict(modules_to_save=PROJECTORS[family]) if projectors else {}
    if method == "lora":
        targets = ["q_proj", "v_proj", "up_proj", "down_proj"]
        return get_peft_model(base, LoraConfig(r=4, target_modules=targets, init_lora_weights=False, **also, **adapter))
    spec = spec_for(family)
    set_seed(0)
    return get_peft_model(base, MokaConfig(r=4, routing=spec, init_lora_weights=False, **also, **adapter))


def arguments_for(out: str, **settings: Any) -> TrainingArguments:
    """The Trainer's settings: quiet, on the CPU, samples in order."""
    defaults = dict(max_steps=20, learning_rate=5e-3, lr_scheduler_type="linear", save_strategy="no")
    quiet = dict(logging_steps=1, report_to="none", disable_tqdm=True, use_cpu=True, remove_unused_columns=False)
    order = dict(train_sampling_strategy="sequential", label_names=["labels"])
    return TrainingArguments(out, **{**quiet, **order, **defaults, **settings})


def logged(trainer: Trainer, name: str) -> list[float]:
    """What was logged at every step."""
    return [float(entry[name]) for entry in trainer.state.log_history if name in entry]


def plain(name: str) -> str:
    """A parameter's name without what wrappers add to it."""
    return name.replace("_checkpoint_wrapped_module.", "")


def whole(value: Tensor) -> Tensor:
    """A parameter as one process would hold it."""
    if hasattr(value, "ds_id"):
        import deepspeed  # pyright: ignore[reportMissingImports]

        with deepspeed.zero.GatheredParameters([value]):
            return value.detach().clone()
    value = value.detach()
    return (value.full_tensor() if isinstance(value, DTensor) else value).clone()


def generated(out: str, family: str = "qwen2_5_vl", **settings: Any) -> list[list[int]]:
    """What the PeftModel generates to three prompts after two steps of training."""
    trainer = build_trainer(out, family=family, max_steps=2, **settings)
    trainer.train()
    prompts = [Row(row.layout.split("|")[0], row.seed) for row in chats_for(family)[:3]]
    inputs = {name: value for name, value in trainer.data_collator(prompts).items() if name != "labels"}
    with torch.no_grad():
        return trainer.model.eval().generate(**inputs, max_new_tokens=5, do_sample=False).tolist()


if __name__ == "__main__":
    trajectory(**json.loads(sys.argv[1]))
