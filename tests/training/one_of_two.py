"""One of the processes of a training run; test_processes starts two of them, as `torchrun` would.

Globals: rank, port, recipe (path), overrides, log (path of this process's output), fail_at (optimizer step or None).
"""

import os

from rich.console import Console

import moka_peft.training.run
from moka_peft.training import load_recipe, train
from moka_peft.training.trainer import FiniteLoss


def fail_in_step(step: int) -> None:
    """Lets this process alone fail after a step."""

    def fail(self, args, state, control, **kwargs):
        if state.global_step == step:
            raise RuntimeError("a process failed")

    FiniteLoss.on_step_end = fail


def slow_claim() -> None:
    """Process 0 takes its time with the folder: the others must wait for it."""
    import time

    claim = moka_peft.training.run._claim
    moka_peft.training.run._claim = lambda *args: (time.sleep(0.5), claim(*args))[1]


if __name__ == "__main__":
    settings = globals()
    os.environ |= {
        "RANK": str(settings["rank"]),
        "LOCAL_RANK": str(settings["rank"]),
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(settings["port"]),
    }
    slow_claim()
    if settings["fail_at"] is not None:
        fail_in_step(settings["fail_at"])
    with open(settings["log"], "a") as log:
        try:
            train(load_recipe(settings["recipe"], settings["overrides"]), Console(file=log, width=300))
        except BaseException as error:
            log.write(f"{type(error).__name__}: {error}\n")
            log.flush()
            os._exit(3)
