"""A training run that dies, as by `kill -9`, at a chosen moment; test_resume runs it in a process of its own.

Globals: recipe (path), overrides, log (path of its output), moment (a key of MOMENTS, or None to live), and for
"watched", which lives until someone kills it, step (path of a file that tells the step it is in).
"""

import gc
import multiprocessing
import os
import signal
import time
from pathlib import Path

import torch
from rich.console import Console
from transformers import Trainer, TrainerCallback

import moka_peft.training.checkpoint
import moka_peft.training.run
from moka_peft.training import load_recipe, train


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class DyingInStep(TrainerCallback):
    def __init__(self, step: int):
        self.step = step

    def on_pre_optimizer_step(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            die()


def in_step(step: int) -> None:
    """After the backward pass of a step, before its update."""
    build = moka_peft.training.run.build_trainer

    def build_dying(*args):
        trainer = build(*args)
        trainer.add_callback(DyingInStep(step))
        return trainer

    moka_peft.training.run.build_trainer = build_dying


def in_checkpoint(step: int) -> None:
    """Half-way through writing the optimizer's state of a checkpoint."""
    save = torch.save

    def save_half(data, path, *args, **kwargs):
        save(data, path, *args, **kwargs)
        if Path(path).match(f"checkpoint-{step}/optimizer.pt"):
            os.truncate(path, os.path.getsize(path) // 2)
            die()

    torch.save = save_half


def before_metrics() -> None:
    """After the last step, while the results are written."""
    moka_peft.training.run.draw_loss = lambda *_: die()


def watched() -> None:
    """Tells its step, and takes its time over every file of a checkpoint."""
    save, compute = torch.save, Trainer.training_step

    def save_slowly(*args, **kwargs):
        time.sleep(0.02)
        save(*args, **kwargs)

    def tell_step(self, *args, **kwargs):
        Path(globals()["step"]).write_text(str(self.state.global_step))
        return compute(self, *args, **kwargs)

    torch.save, Trainer.training_step = save_slowly, tell_step


MOMENTS = {
    "first step": lambda: in_step(0),
    "step": lambda: in_step(3),
    "checkpoint": lambda: in_checkpoint(4),
    "results": before_metrics,
    "watched": watched,
}

if __name__ == "__main__":
    gc.freeze()  # else a collection would visit, and so copy, all that this process forked with
    multiprocessing.set_start_method("fork", force=True)  # data loaders as in a run started by hand
    settings = globals()
    if settings["moment"]:
        MOMENTS[settings["moment"]]()
    with open(settings["log"], "a") as log:
        train(load_recipe(settings["recipe"], settings["overrides"]), Console(file=log))
