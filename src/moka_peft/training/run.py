"""A recipe becomes a trained adapter: the order of a run, from the output folder to the metrics."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from transformers import TrainerCallback

from moka_peft.data import Sample, merge_skipped
from moka_peft.data.skipping import keep_readable
from moka_peft.training import folder
from moka_peft.training.arguments import trainer_arguments
from moka_peft.training.best import Stopping
from moka_peft.training.card import write_run_card
from moka_peft.training.checkpoint import CheckpointMarking, newest_complete, step_of
from moka_peft.training.determinism import deterministic, seed_all
from moka_peft.training.earlier_parts import keep_parts, start_from
from moka_peft.training.hub import check_hub, upload
from moka_peft.training.methods import PEFTS_OWN
from moka_peft.training.model import add_adapter, load_model
from moka_peft.training.parts import find_parts, weights_of
from moka_peft.training.plot import draw_learning_rate, draw_loss, draw_scores
from moka_peft.training.processes import on_first, process_group, rank, world_size
from moka_peft.training.progress import TrainingProgress
from moka_peft.training.reading import held_out_collator, open_source, plan_batches, through_cache, training_collator
from moka_peft.training.recipe import Recipe
from moka_peft.training.recipe_file import check_machine, write_recipe
from moka_peft.training.reports import tensorboard_callbacks
from moka_peft.training.scoring import HeldOut, HeldOutScoring
from moka_peft.training.sharded import trained_weights
from moka_peft.training.stopwatch import Stopwatch
from moka_peft.training.trainer import MokaTrainer, build_trainer
from moka_peft.training.weights import restore_last, take_best
from moka_peft.tuner import MokaModel, media_with_keys

ELSEWHERE = {
    "keep_checkpoints", "num_threads", "deterministic", "packing", "max_length", "projector_learning_rate",
    "tower_learning_rate", "best", "early_stopping", "report_to",
}  # fmt: skip  # keys of the section `training` that are no settings of the Trainer


def train(recipe: Recipe, console: Console | None = None) -> dict[str, Any]:
    """Trains the adapter that a recipe describes and returns the metrics.

    The output folder gets the adapter, the processor, recipe.yaml, metrics.json, plots and a README.md. Raises
    before any training where the folder, the data, the model or the hub cannot be used. With `resume`, a run goes
    on from its newest complete checkpoint, and a finished one is left as it is. Under `torchrun` or `accelerate
    launch` process 0 does all of the writing and showing.
    """
    check_machine(recipe)
    console = (console or Console()) if rank() == 0 else Console(quiet=True)
    with process_group():
        out = Path(recipe.output_dir)
        if on_first(lambda: _claim(recipe, out)):
            console.print(f"nothing to do: {out} holds the finished run", soft_wrap=True)
            metrics = on_first(lambda: folder.read_json(out / folder.METRICS))
        else:
            notes = on_first(lambda: _notes(recipe, out))
            with deterministic(notes["num_threads"], recipe.training.deterministic):
                metrics = _run(recipe, out, notes, console)
    if recipe.push_to_hub and rank() == 0:
        console.print(f"uploaded to {upload(out, recipe.push_to_hub)}", soft_wrap=True)
    return metrics


def _claim(recipe: Recipe, out: Path) -> bool:
    """Makes the output folder the run's; whether the run in it is finished."""
    if recipe.push_to_hub:
        check_hub(recipe.push_to_hub)
    folder.claim_folder(out, recipe.settings(), resume=recipe.resume, overwrite=recipe.overwrite)
    if not folder.is_finished(out):
        write_recipe(recipe, out / folder.RECIPE)
        return False
    return True


def _notes(recipe: Recipe, out: Path) -> dict[str, Any]:
    """What a resumed run must know of its beginning."""
    notes = folder.read_json(out / folder.NOTES)
    notes.setdefault("num_threads", recipe.training.num_threads or torch.get_num_threads())
    _compare(notes, "processes", world_size())
    return notes


def _compare(notes: dict[str, Any], name: str, now: int) -> None:
    """Raises ValueError where a resumed run would count its epochs by other numbers than it began with."""
    if (began := notes.setdefault(name, now)) != now:
        raise ValueError(
            f"`resume` needs the {name} the run began with: expected {began}, got {now}. Its steps would stand for "
            "other samples. Undo the change, or start a new run in another folder."
        )


def _run(recipe: Recipe, out: Path, notes: dict[str, Any], console: Console) -> dict[str, Any]:
    """Everything between a claimed folder and its metrics."""
    samples, questions = open_source(recipe.data.train, recipe.data), open_source(recipe.data.eval, recipe.data)
    _compare(notes, "samples", len(samples))
    seed_all(recipe.seed)
    base, processor = load_model(**recipe.model.model_dump(exclude={"start_from"}))
    own = start_from(base, recipe.model.start_from or ())
    own += weights_of(base, find_parts(base)["projectors"]) if recipe.model.text else []  # fresh ones are nowhere else
    model = add_adapter(base, processor, **recipe.adapter.model_dump(), train=recipe.trained_parts())
    on_first(lambda: keep_parts(model, own, out))
    kept = recipe.training.keep_checkpoints + bool(recipe.training.best)
    on_first(lambda: folder.check_space(out, model.get_nb_trainable_parameters()[0], kept))

    collator, limits = (
        held_out_collator(recipe, processor),
        recipe.evaluation.model_dump(exclude={"steps", "before", "benchmarks"}),
    )
    if recipe.data.on_bad_sample == "skip":
        questions = keep_readable(questions, collator, out / folder.SKIPPED)
    if recipe.data.eval is not None and not len(questions):
        raise ValueError(
            f"`data.eval` has no sample left to score: all were skipped, see {out / folder.SKIPPED}. Correct them, or "
            "remove `data.eval`."
        )
    questions, collator = through_cache(recipe, questions, collator, prompts=True)
    held_out = HeldOut(processor, collator, questions, console=console, **limits)
    if recipe.evaluation.before and "before" not in notes:
        notes["before"], notes["loss_before"] = held_out.score(model, "before training")
    on_first(lambda: folder.write_json(out / folder.NOTES, notes))
    with TrainingProgress(console) as progress:
        callbacks = [*_callbacks(recipe, held_out, out), progress]
        trainer = _trainer(recipe, model, processor, samples, out, callbacks)
        cost = _fit(trainer, recipe, console)
    results = {"before": {}, **notes, **_score(recipe, out, trainer, model, held_out)}
    results["held_out_loss"] = {"before": notes.get("loss_before"), "after": results["held_out_loss"]}
    results |= {**cost, "processes": world_size()}
    return _finish(recipe, out, trainer, processor, results, console)


def _score(recipe: Recipe, out: Path, trainer: MokaTrainer, model: Any, held_out: HeldOut) -> dict[str, Any]:
    """What the trained model makes of the held-out samples: that of the best step where one is kept."""
    best = take_best(trainer, recipe.training.best)
    if best:
        after, loss = best.pop("scores"), best.pop("held_out_loss")
        held_out.show(after, loss, f"of the best step, {best['step']}")
    else:
        after, loss = held_out.score(model, "after training")
        on_first(lambda: held_out.write_answers(out / folder.ANSWERS))
    return {"after": after, "held_out_loss": loss, "best": best}


def _callbacks(recipe: Recipe, held_out: HeldOut, out: Path) -> list[TrainerCallback]:
    """Scoring first: what it finds decides which checkpoints stay."""
    settings = recipe.training
    stopping = Stopping(**settings.early_stopping.model_dump()) if settings.early_stopping else None
    callbacks: list[TrainerCallback] = [CheckpointMarking(settings.keep_checkpoints, settings.best)]
    if recipe.evaluation.steps:
        answers = out / folder.ANSWERS
        callbacks.insert(0, HeldOutScoring(held_out, recipe.evaluation.steps, settings.best, stopping, answers))
    return callbacks + tensorboard_callbacks(settings.report_to, out)


def _trainer(
    recipe: Recipe, model: Any, processor: Any, samples: Sequence[Sample], out: Path, callbacks: list[TrainerCallback]
) -> MokaTrainer:
    settings = recipe.training.model_dump(exclude=ELSEWHERE)
    others = [name for name in recipe.training.report_to if name != "tensorboard"]
    adapter, in_towers = recipe.adapter, "towers" in recipe.trained_parts()
    partly_used = in_towers or bool(adapter.modules_to_save or adapter.method in PEFTS_OWN and adapter.target_modules)
    arguments = trainer_arguments(
        out / folder.CHECKPOINTS, seed=recipe.seed, report_to=others, find_unused=partly_used, **settings
    )
    rates = {
        "projectors": recipe.training.projector_learning_rate,
        "towers": recipe.training.tower_learning_rate,
    }
    rates = {part: rate for part, rate in rates.items() if rate is not None}
    collator = training_collator(recipe, processor, model.config, out / folder.SKIPPED)
    plan = plan_batches(recipe, samples, collator)
    samples, collator = through_cache(recipe, samples, collator)
    return build_trainer(model, collator, samples, arguments, callbacks, rates, plan)


def _fit(trainer: MokaTrainer, recipe: Recipe, console: Console) -> dict[str, Any]:
    """Trains from the newest complete checkpoint, or from the start; returns `seconds`, of all its parts, and on a GPU
    `peak_bytes`, the most that torch held there since it went on."""
    checkpoint, torn = on_first(lambda: newest_complete(Path(str(trainer.args.output_dir))))
    for problem in torn:
        console.print(f"not used: {problem}", soft_wrap=True)
    seed_all(trainer.args.seed)
    on_gpu = torch.cuda.is_available()
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    trainer.add_callback(watch := Stopwatch(checkpoint))
    if checkpoint:
        console.print(f"going on after step {step_of(checkpoint)}", soft_wrap=True)
    stopping = recipe.training.early_stopping
    if not checkpoint or not restore_last(trainer, checkpoint, Stopping(**stopping.model_dump()) if stopping else None):
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    return {"seconds": watch.seconds, "peak_bytes": torch.cuda.max_memory_allocated() if on_gpu else None}


def _finish(
    recipe: Recipe, out: Path, trainer: MokaTrainer, processor: Any, results: dict[str, Any], console: Console
) -> dict[str, Any]:
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
    weights = trained_weights(trainer)

    def write() -> None:
        if skipped := merge_skipped(out / folder.SKIPPED, out / f"{folder.SKIPPED}.jsonl"):
            metrics["skipped_samples"] = len(skipped)
            listed = out / f"{folder.SKIPPED}.jsonl"
            console.print(f"skipped {len(skipped)} bad samples, listed in {listed}", soft_wrap=True)
        model.save_pretrained(out, state_dict=weights)
        processor.save_pretrained(out)
        draw_loss(history, out / folder.PLOT)
        draw_scores(history, recipe.evaluation.metric, out / folder.SCORES_PLOT)
        draw_learning_rate(history, out / folder.LEARNING_RATE_PLOT)
        write_run_card(out, recipe.model_dump(), metrics, type(model.get_base_model()))
        folder.write_json(out / folder.METRICS, metrics)

    on_first(write)
    console.print(f"adapter, metrics and plots are in {out}", soft_wrap=True)
    return metrics
