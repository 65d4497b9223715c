"""What bench/compare_gpu.py compares methods on: models trained here, their stage 1, and the prepared samples."""

from __future__ import annotations

import hashlib
import os
import runpy
import subprocess
import sys
from argparse import Namespace
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import torch
from recording import write

from moka_peft.training import load_model, load_recipe, train
from moka_peft.training.folder import METRICS, read_json
from moka_peft.training.reading import held_out_collator, open_source, through_cache, training_collator

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = ROOT / "scripts" / "build_scenario_models.py"
STAGE1 = ROOT / "recipes" / "scenarios" / "avt_large_stage1.yaml"
RECIPE = ROOT / "recipes" / "compare" / "large.yaml"
PARTS = ("text", "vision", "speech")
SPEAKERS = {"train": "[george, jackson, lucas, nicolas]", "eval": "[theo, yweweler]"}
TINY_MODELS = ["--size", "small", "--text-steps", "2", "1", "--encoder-steps", "2", "--test-size", "20"]
TINY_RUNS = [
    "data.train.size=8", "data.eval.size=4", "training.steps=2", "training.batch_size=2", "evaluation.batch_size=4",
    "training.num_workers=0",
]  # fmt: skip
SAMPLES_OF_TRIALS = ["data.train.seed=100", "data.eval.seed=100", "data.eval.split=align"]


def builder_words(part: str, options: Namespace) -> list[str]:
    """What the script of the models is called with for one of them."""
    workers = max(1, (os.cpu_count() or 1) // len(PARTS))
    own = TINY_MODELS if options.tiny else ["--size", "large", "--workers", str(workers)]
    heard = ["--recordings", str(options.recordings)] if options.recordings else []
    return [*own, *heard, "--parts", part, "--out", str(options.out / "models")]


def build_models(options: Namespace) -> None:
    """Trains the models that are not there, all at the same time; tiny ones in this process where it is to be alone.

    Raises RuntimeError where one could not be trained.
    """
    missing = [part for part in PARTS if not (options.out / "models" / part / "training.json").is_file()]
    if options.tiny and options.processes == 1:
        for part in missing:
            runpy.run_path(str(SCRIPT))["main"](builder_words(part, options))
        return
    started = {part: subprocess.Popen([sys.executable, str(SCRIPT), *builder_words(part, options)]) for part in missing}
    if failed := [part for part, process in started.items() if process.wait()]:
        raise RuntimeError(f"{SCRIPT.name} failed for {', '.join(failed)}: what it printed says why.")


def common_settings(options: Namespace) -> list[str]:
    """Where the models and the recordings are, for both recipes."""
    models = options.out / "models"
    folders = {"text": "text", "vision.name": "vision", "audio.name": "speech"}
    found = [f"model.{key}={models / name}" for key, name in folders.items()]
    if options.recordings:
        found += [f"data.{part}.folder={options.recordings}" for part in SPEAKERS]
    return [*found, *(TINY_RUNS if options.tiny else [])]


def compared_settings(options: Namespace, *, aligned: bool = True) -> list[str]:
    """What leads recipes/compare/large.yaml to what is in --out. aligned: whether stage 1 is there."""
    start = f"model.start_from=[{options.out / 'stage1'}]" if aligned else "model.start_from=null"
    named = [f"data.{part}.speakers={names}" for part, names in SPEAKERS.items()] if options.recordings else []
    return [*common_settings(options), f"data.cache={options.out / 'cache'}", start, *named]


def trial_settings(options: Namespace, **more: bool) -> list[str]:
    """Those of the runs that choose the learning rate: other questions, images and recordings, of known speakers."""
    speakers = SPEAKERS["train"] if options.recordings else "[a, b, c, d]"
    return [*compared_settings(options, **more), *SAMPLES_OF_TRIALS, f"data.eval.speakers={speakers}"]


def align(options: Namespace) -> None:
    """Stage 1, and meanwhile, where there may be several processes, the samples of what follows."""
    if (options.out / "stage1" / METRICS).is_file():
        return
    settings = [*common_settings(options), f"output_dir={options.out / 'stage1'}", "resume=true"]
    if options.processes == 1:
        train(load_recipe(STAGE1, settings))
        return
    followed = [compared_settings(options, aligned=False), trial_settings(options, aligned=False)]
    with ProcessPoolExecutor(len(followed), get_context("spawn")) as pool:
        filled = [pool.submit(fill_cache, own) for own in followed]
        train(load_recipe(STAGE1, settings))
        for one in filled:
            one.result()


def fill_cache(settings: list[str]) -> None:
    """Prepares the samples of recipes/compare/large.yaml with these settings, as its runs would."""
    torch.set_num_threads(1)
    recipe = load_recipe(RECIPE, settings)
    model, processor = load_model(**recipe.model.model_dump(exclude={"start_from"}))
    samples, questions = open_source(recipe.data.train, recipe.data), open_source(recipe.data.eval, recipe.data)
    through_cache(recipe, samples, training_collator(recipe, processor, model.config, Path()))
    through_cache(recipe, questions, held_out_collator(recipe, processor), prompts=True)


def check_base(out: Path) -> None:
    """Raises ValueError where runs are there that began with other weights than these."""
    files = sorted([*out.glob("models/*/model.safetensors"), out / "stage1" / "adapter_model.safetensors"])
    digits = hashlib.sha256(b"".join(hashlib.sha256(file.read_bytes()).digest() for file in files)).hexdigest()[:16]
    began = read_json(out / "base.json").setdefault("weights", digits)
    if began != digits:
        raise ValueError(
            f"`out` holds runs on other models: expected weights {began}, got {digits}. Remove {out / 'runs'} and "
            f"{out / 'base.json'}, or bring those models back."
        )
    write(out / "base.json", {"weights": digits})
