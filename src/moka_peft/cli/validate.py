"""`moka validate`: everything that can be known about a run before a model is loaded."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from moka_peft.cli import quiet

if TYPE_CHECKING:
    from moka_peft.training import Findings

    quiet()
SHOWN = 20


def run(
    recipe: Annotated[Path, typer.Argument(help="YAML file, for example recipes/quickstart.yaml")],
    settings: Annotated[list[str] | None, typer.Argument(help="key=value over the recipe")] = None,
) -> None:
    """Check a recipe, its files and its samples; loads no model."""
    from moka_peft.training import inspect_samples, load_processor, load_recipe, open_source

    plan = load_recipe(recipe, settings or ())
    processor = load_processor(plan.model.name, plan.model.revision)
    problems = []
    for part, source in (("train", plan.data.train), ("eval", plan.data.eval)):
        if source is None:
            continue
        try:
            findings = inspect_samples(processor, open_source(source))
        except (OSError, ValueError) as error:
            problems.append(f"data.{part}: {error}")
            continue
        print(f"data.{part}: {describe(findings)}")
        problems += [f"data.{part}: {problem}" for problem in findings.problems]
    for problem in problems[:SHOWN]:
        print(f"moka: {problem}", file=sys.stderr)
    if problems:
        raise ValueError(f"{recipe} is not valid: {len(problems)} problems, at most {SHOWN} of them above.")
    print(f"{recipe} is valid")


def describe(findings: "Findings") -> str:
    """One line on a source: how many samples, how long, and what their tokens are."""
    lengths = findings.lengths or [0]
    total = max(1, sum(findings.tokens.values()))
    shares = ", ".join(f"{kind} {count / total:.0%}" for kind, count in findings.tokens.items() if count)
    mean = sum(lengths) / len(lengths)
    return f"{findings.samples} samples of {min(lengths)} to {max(lengths)} tokens (mean {mean:.0f}): {shares}"
