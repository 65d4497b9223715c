"""The command `moka`: a table of verbs, one file each, imported only when it is called."""

import importlib
import os
import re
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Annotated

import typer

VERBS = {
    "train": ("moka_peft.cli.train:run", "Train an adapter from a recipe, or resume its run."),
    "validate": ("moka_peft.cli.validate:run", "Check a recipe, its files and its samples; loads no model."),
    "eval": ("moka_peft.cli.eval:run", "Run benchmarks on adapters and models, and score them."),
    "plan": ("moka_peft.cli.plan:run", "Count parameters, memory per GPU and tokens per step; downloads nothing."),
    "generate": ("moka_peft.cli.generate:run", "Answer one question on files of your own."),
    "chat": ("moka_peft.cli.chat:run", "Talk to a trained model, with media, over several turns."),
    "route": ("moka_peft.cli.route:run", "Draw a sample's tokens by modality and turn."),
    "compare": ("moka_peft.cli.compare:run", "Compare methods on a recipe: seeds, intervals, costs, a report."),
    "score": ("moka_peft.cli.score:run", "Score a benchmark's answers, strictly and as MokA's authors did."),
    "bench": ("moka_peft.cli.bench:run", "Time LoRA's and MokA's training steps on your machine and model."),
    "analyze": ("moka_peft.cli.analyze:run", "Show why an adapter does what it does: whose tokens, which words."),
    "import-authors-adapter": (
        "moka_peft.cli.import_authors_adapter:run",
        "Make an adapter of a checkpoint of the authors' code.",
    ),
    "export-authors-adapter": (
        "moka_peft.cli.export_authors_adapter:run",
        "Write an adapter as the authors' code reads it.",
    ),
    "env": ("moka_peft.cli.env:run", "Show versions and devices, for a bug report."),
}
_IN_WORKER = re.compile(r"(?s)^Caught \w+ in DataLoader worker process \d+\.\n.*\n[\w.]+: ")  # a traceback as message


def main(args: Sequence[str] | None = None) -> None:
    """Runs `moka` and exits: 0 done, 1 failed, 2 wrong usage; errors are one line on stderr."""
    arguments = list(sys.argv[1:] if args is None else args)
    debug = "--debug" in arguments
    sys.exit(call([word for word in arguments if word != "--debug"], debug=debug))


def call(arguments: Sequence[str], *, debug: bool = False) -> int:
    """Runs one verb and gives the exit code; what it raises becomes one line on stderr.

    A verb finds the words of the command in its context, as `obj`.
    """
    try:
        words = list(arguments) or ["--help"]
        return _app(arguments)(words, prog_name="moka", standalone_mode=False, obj=tuple(words)) or 0
    except KeyboardInterrupt:
        print("moka: interrupted", file=sys.stderr)
        return 1
    except Exception as error:
        if debug:
            traceback.print_exc()
        for line in _lines(error) if _is_for_this_process(error) else ():
            print(f"moka: {line}", file=sys.stderr)
        return _exit_code(error)


def quiet() -> None:
    """Keeps transformers' own progress bars out of what a verb shows."""
    from transformers.utils import logging

    logging.disable_progress_bar()


def _app(arguments: Sequence[str]) -> typer.Typer:
    """Builds the command line; only the verb that is called gets imported, the others show their help."""
    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    app.callback()(_debug)
    called = next((word for word in arguments if not word.startswith("-")), None)
    for verb, (target, summary) in VERBS.items():
        help = None if verb == called else summary
        app.command(verb, help=help, short_help=summary)(_load(target) if verb == called else _listed)
    return app


def _debug(debug: Annotated[bool, typer.Option("--debug", help="Show an error's traceback.")] = False) -> None:
    """Multimodal-aware fine-tuning: train, validate and use MokA adapters."""


def _listed() -> None:
    """Stands in the list of verbs for one that is not called."""


def _load(target: str) -> Callable[..., None]:
    module, _, name = target.partition(":")
    return getattr(importlib.import_module(module), name)


def _lines(error: Exception) -> list[str]:
    """One line for an error, or one per problem where an error holds several (a recipe's)."""
    problems = getattr(error, "problems", None)
    message = getattr(error, "format_message", lambda: str(error))()
    if isinstance(error, KeyError) or not message:
        message = f"{type(error).__name__}: {message}"
    return [" ".join(_IN_WORKER.sub("", text).split()) for text in problems or [message]]


def _is_for_this_process(error: Exception) -> bool:
    """Whether one of several processes shows an error: what all of them find, one per machine shows."""
    is_first_here = os.environ.get("LOCAL_RANK", "0") == "0"
    return not getattr(error, "is_shown_elsewhere", False) and (is_first_here or not hasattr(error, "problems"))


def _exit_code(error: Exception) -> int:
    """2 where the command line or the recipe is wrong, else 1."""
    return 2 if getattr(error, "exit_code", None) == 2 or hasattr(error, "problems") else 1
