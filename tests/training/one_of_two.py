"""One of the processes of a training run; test_processes starts two of them, as `torchrun` would.

Globals: rank, port, recipe (path), overrides, log (path of this process's output), fail_at (optimizer step or None),
shard (whether FSDP2 splits the model).
"""

import gc
import os

from accelerate.state import AcceleratorState, DistributedType, PartialState
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


def shard() -> None:
    """What `accelerate launch --use_fsdp` sets; without an accelerator accelerate would take DDP and say nothing."""
    os.environ |= {
        "ACCELERATE_USE_FSDP": "true",
        "FSDP_VERSION": "2",
        "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
        "FSDP_TRANSFORMER_CLS_TO_WRAP": "LlamaDecoderLayer",
    }
    build = AcceleratorState.__init__

    def build_sharding(self, *args, fsdp_plugin=None, **kwargs):
        build(self, *args, fsdp_plugin=fsdp_plugin, **kwargs)
        if fsdp_plugin is not None:
            self.distributed_type, self.fsdp_plugin = DistributedType.FSDP, fsdp_plugin
            PartialState._shared_state["distributed_type"] = DistributedType.FSDP

    AcceleratorState.__init__ = build_sharding


if __name__ == "__main__":
    gc.freeze()  # else a collection would visit, and so copy, all that this process forked with
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
    if settings["shard"]:
        shard()
    if settings["fail_at"] is not None:
        fail_in_step(settings["fail_at"])
    with open(settings["log"], "a") as log:
        try:
            train(load_recipe(settings["recipe"], settings["overrides"]), Console(file=log, width=300))
        except BaseException as error:
            log.write(f"{type(error).__name__}: {error}\n")
            log.flush()
            os._exit(3)
