"""A comparison that dies, as by `kill -9`, in the second step of one of its runs; test_run runs it in a process.

Globals: recipe (path), out (folder), log (path: a line per run that starts), dies_in (number of that run, from 1; 0 to
live), processes.
"""

import gc
import os
import signal
from pathlib import Path

from rich.console import Console
from transformers import TrainerCallback

import moka_peft.analysis.compare.cell as cell
import moka_peft.training.run as run
from moka_peft.analysis.compare.grid import Wanted, plan_grid
from moka_peft.analysis.compare.run import run_grid
from moka_peft.training import load_recipe

settings = globals()
train, build, started = cell.train, run.build_trainer, []


class DyingInStep(TrainerCallback):
    def on_step_begin(self, args, state, control, **kwargs):
        with open(settings["log"] + ".steps", "a") as log:
            print(Path(started[-1]).name, state.global_step, file=log)

    def on_pre_optimizer_step(self, args, state, control, **kwargs):
        if state.global_step == 1 and len(started) == settings["dies_in"]:
            os.kill(os.getpid(), signal.SIGKILL)


def train_logged(recipe, console):
    started.append(recipe.output_dir)
    with open(settings["log"], "a") as log:
        print(Path(recipe.output_dir).name, file=log)
    return train(recipe, console)


def build_dying(*args):
    trainer = build(*args)
    trainer.add_callback(DyingInStep())
    return trainer


if __name__ == "__main__":  # processes that it starts import it, too
    gc.freeze()  # else a collection would visit, and so copy, all that this process forked with
    cell.train, run.build_trainer = train_logged, build_dying
    wanted = Wanted(("lora", "moka"), {"lora": 2, "moka": 1}, ("rank",))
    grid = plan_grid(load_recipe(settings["recipe"]), wanted)
    run_grid(grid, Path(settings["out"]), processes=settings["processes"], console=Console(quiet=True))
