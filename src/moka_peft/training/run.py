"""A recipe becomes a trained adapter: the order of a run, from the output folder to the metrics."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from transformers import Trainer, TrainerCallback, TrainerState

from moka_peft.data import Collator, MediaOptions, Sample, SkippingCollator, load_samples, merge_skipped
from moka_peft.data.skipping import keep_readable
from moka_peft.training import folder
from moka_peft.training.checkpoint import CheckpointMarking, newest_complete, step_of
from moka_peft.training.determinism import deterministic, seed_all
from moka_peft.training.model import add_adapter, load_model
from moka_peft.training.plot import draw_loss
from moka_peft.training.progress import TrainingProgress
from moka_peft.training.recipe import Data, Recipe, Source
from moka_peft.training.recipe_file import write_recipe
from moka_peft.training.scoring import HeldOut, HeldOutScoring
from moka_peft.training.trainer import build_trainer, trainer_arguments
from moka_peft.tuner import MokaModel, media_with_keys


def train(recipe: Recipe, console: Console | None = None) -> dict[str, Any]:
    """Trains the adapter that a recipe describes and returns the metrics.

    The output folder gets the adapter, the processor, recipe.yaml, metrics.json and loss.png. Raises before any
    training where the folder, the data or the model cannot be used. With `resume`, a run goes on from its
    newest complete checkpoint, and a finished one is left as it is.
    """
    console = console or Console()
    out = Path(recipe.output_dir)
    folder.claim_folder(out, recipe.settings(), resume=recipe.resume, overwrite=recipe.overwrite)
    if folder.is_finished(out):
        console.print(f"nothing to do: {out} holds the finished run", soft_wrap=True)
        return folder.read_json(out / folder.METRICS)
    write_recipe(recipe, out / folder.RECIPE)
    notes = folder.read_json(out / folder.NOTES)
    notes.setdefault("num_threads", recipe.training.num_threads or torch.get_num_threads())
    with deterministic(notes["num_threads"], recipe.training.deterministic):
        return _run(recipe, out, notes, console)


def open_source(source: Source | None, data: Data | None = None) -> Sequence[Sample]:
    """The samples of one part of a recipe's data, read as `data` says; none where the recipe has no such part."""
    if source is None:
        return []
    settings = source.model_dump(exclude_none=True)
    if data is None:
        return load_samples(settings)
    return load_samples(settings, media=MediaOptions(**data.media.model_dump()), on_bad_sample=data.on_bad_sample)


def open_collator(recipe: Recipe, processor: Any) -> Collator:
    """The collator of a recipe, which refuses bad samples."""
    media = MediaOptions(**recipe.data.media.model_dump())
    return Collator(processor, media=media, max_length=recipe.training.max_length)


def _run(recipe: Recipe, out: Path, notes: dict[str, Any], console: Console) -> dict[str, Any]:
    """Everything between a claimed folder and its metrics. `notes` are what a resumed run must know."""
    samples, questions = open_source(recipe.data.train, recipe.data), open_source(recipe.data.eval, recipe.data)
    seed_all(recipe.seed)
    base, processor = load_model(**recipe.model.model_dump())
    model = add_adapter(base, processor, **recipe.adapter.model_dump(), train_projectors=recipe.train_projectors)
    folder.check_space(out, model.get_nb_trainable_parameters()[0], recipe.training.keep_checkpoints)

    collator, skips = open_collator(recipe, processor), recipe.data.on_bad_sample == "skip"
    questions = keep_readable(questions, collator, out / folder.SKIPPED) if skips else questions
    limits = recipe.evaluation.model_dump(exclude={"steps"})
    held_out = HeldOut(processor, collator, questions, **limits, console=console)
    if "before" not in notes:
        notes["before"] = held_out.score(model, "before training")
        folder.write_json(out / folder.NOTES, notes)

    settings = recipe.training.model_dump(exclude={"keep_checkpoints", "num_threads", "deterministic", "max_length"})
    arguments = trainer_arguments(out / folder.CHECKPOINTS, seed=recipe.seed, **settings)
    callbacks: list[TrainerCallback] = [CheckpointMarking(recipe.training.keep_checkpoints)]
    if recipe.evaluation.steps:
        callbacks.insert(0, HeldOutScoring(held_out, recipe.evaluation.steps))
    with TrainingProgress(console) as progress:
        reading = SkippingCollator(collator, out / folder.SKIPPED) if skips else collator
        trainer = build_trainer(model, reading, samples, arguments, [*callbacks, progress])
        seconds = _fit(trainer, console)
    after = held_out.score(model, "after training")
    if skipped := merge_skipped(out / folder.SKIPPED, out / f"{folder.SKIPPED}.jsonl"):
        console.print(f"skipped {len(skipped)} bad samples, listed in {out / folder.SKIPPED}.jsonl", soft_wrap=True)
    return _finish(out, trainer, processor, {**notes, "after": after, "seconds": seconds}, console)


def _fit(trainer: Trainer, console: Console) -> float:
    """Trains from the newest complete checkpoint, or from the start; returns the seconds it took."""
    checkpoint, torn = newest_complete(Path(str(trainer.args.output_dir)))
    for problem in torn:
        console.print(f"not used: {problem}", soft_wrap=True)
    seed_all(trainer.args.seed)
    start = time.monotonic()
    if checkpoint:
        console.print(f"going on after step {step_of(checkpoint)}", soft_wrap=True)
    if not checkpoint or not _restore_last_step(trainer, checkpoint):
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    return time.monotonic() - start


def _restore_last_step(trainer: Trainer, checkpoint: Path) -> bool:
    """Takes the weights and the log of a checkpoint of the last step; False where steps are left.

    The Trainer itself would train one step too many: it looks whether it is done only after a step.
    """
    state = TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
    if state.global_step < state.max_steps:
        return False
    model: Any = trainer.model
    model.load_adapter(str(checkpoint), model.active_adapter, is_trainable=True)
    trainer.state = state
    return True


def _finish(out: Path, trainer: Trainer, processor: Any, results: dict[str, Any], console: Console) -> dict[str, Any]:
    """Writes what a run leaves behind; metrics.json comes last, as the sign that all of it is there."""
    model: Any = trainer.model
    history = trainer.state.log_history
    trained, parameters = model.get_nb_trainable_parameters()
    metrics = results | {
        "during": [entry for entry in history if "scores" in entry],
        "steps": trainer.state.global_step,
        "trained_parameters": trained,
        "parameters": parameters,
        "media_with_keys": media_with_keys(model) if isinstance(model.base_model, MokaModel) else {},
    }
    model.save_pretrained(out)
    processor.save_pretrained(out)
    draw_loss(history, out / folder.PLOT)
    folder.write_json(out / folder.METRICS, metrics)
    console.print(f"adapter, metrics and loss plot are in {out}", soft_wrap=True)
    return metrics
