"""One process of a launch. Globals: function, settings, rank, count, port, folder; see `launch.Launch`."""

import gc
import importlib
import os
import sys
import traceback
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.distributed.launch import rank_environment, redirect_output  # noqa: E402

if __name__ == "__main__":
    gc.freeze()  # else a collection would visit, and so copy, all that this process forked with: 0.8 s of a run
    given = globals()
    folder = Path(given["folder"])
    redirect_output(folder / f"rank{given['rank']}.log")
    os.environ.update(rank_environment(given["rank"], given["count"], given["port"]))
    torch.set_num_threads(1)
    module, _, name = given["function"].partition(":")
    try:
        result = getattr(importlib.import_module(module), name)(**given["settings"])
        torch.save(result, folder / f"rank{given['rank']}.pt")
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)  # without waiting for a process group whose other ranks still run
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    sys.stderr.flush()
    os._exit(0)
