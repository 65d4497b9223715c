"""`moka validate`: everything that can be known about a run before a model is loaded."""

import itertools
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from moka_peft.cli import quiet

if TYPE_CHECKING:
    from moka_peft import RoutingSpec
    from moka_peft.training import Findings, Recipe

    quiet()
SHOWN = 20


def run(
    recipe: Annotated[Path, typer.Argument(help="YAML file, for example recipes/quickstart.yaml")],
    settings: Annotated[list[str] | None, typer.Argument(help="key=value over the recipe")] = None,
    draw: Annotated[int, typer.Option(min=0, help="how many of the training samples are drawn")] = 1,
    limit: Annotated[int | None, typer.Option(min=1, help="look at the first samples only")] = None,
    workers: Annotated[int, typer.Option(min=0, help="processes that read samples")] = 0,
    write_index: Annotated[Path | None, typer.Option(help="file for the training samples' token lengths")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")] = False,
) -> None:
    """Check a recipe, its files and its samples; loads no model."""
    from moka_peft.training import load_recipe

    if write_index is not None and limit is not None:
        raise typer.BadParameter("an index holds all samples: leave --limit out")
    unread = ["data.train.index=null"] if write_index is not None else []  # a recipe may name the index to be written
    plan = load_recipe(recipe, [*(settings or ()), *unread])
    check = _Check(plan, limit, workers, as_json)
    found = {part: check.inspect(part) for part in ("train", "eval") if getattr(plan.data, part) is not None}
    problems = [f"data.{part}: {problem}" for part, (_, lines) in found.items() for problem in lines]
    _report(found, problems, recipe, as_json)
    train = found["train"][0]
    if train is not None and not as_json:
        check.draw(draw, train)
    if write_index is not None and train is not None:
        check.write_index(write_index, train)
    if problems and plan.data.on_bad_sample == "raise" or any(findings is None for findings, _ in found.values()):
        raise ValueError(f"{recipe} is not valid: {len(problems)} problems, at most {SHOWN} of them above.")
    if not as_json:
        print(f"{recipe} is valid" + (f"; {len(problems)} bad samples will be skipped" if problems else ""))


class _Check:
    """A recipe's data, opened and read once."""

    def __init__(self, plan: "Recipe", limit: int | None, workers: int, as_json: bool):
        from moka_peft.cli.route import open_base
        from moka_peft.training import open_collator
        from moka_peft.training.reading import held_out_collator

        self.plan, self.limit, self.workers = plan, limit, workers
        self.processor, config = open_base(**plan.model.model_dump(exclude={"dtype", "start_from"}))
        self.collator, self.held_out = open_collator(plan, self.processor), held_out_collator(plan, self.processor)
        self.spec = _spec(config, self.processor, as_json)
        self.train: Any = []

    def inspect(self, part: str) -> "tuple[Findings | None, list[str]]":
        """What one part of the data holds, None where it cannot be opened, and what is wrong with it."""
        from moka_peft.training import inspect_samples, open_source

        # in skip mode all bad rows are found at once; what is done about them is the recipe's own setting
        data = self.plan.data.model_copy(update={"on_bad_sample": "skip"})
        try:
            samples = open_source(getattr(data, part), data)
        except (OSError, ValueError) as error:
            return None, [str(error)]
        if part == "train":
            self.train = samples
        findings = inspect_samples(
            self.processor,
            samples,
            collator=self.collator if part == "train" else self.held_out,
            spec=self.spec,
            limit=self.limit,
            workers=self.workers,
        )
        return findings, findings.problems

    def draw(self, count: int, findings: "Findings") -> None:
        """Draws the first good training samples as `moka route` does."""
        from moka_peft.cli.route import show

        if self.spec is None:
            return
        bad = set(findings.bad)
        good = (position for position in range(findings.samples) if position not in bad)
        for position in itertools.islice(good, count):
            batch = self.collator([self.train[position]])
            print(f"data.train, sample {position} ({self.train[position].id}):")
            show(batch["input_ids"], batch["attention_mask"], self.spec, self.processor.tokenizer)

    def write_index(self, path: Path, findings: "Findings") -> None:
        from moka_peft.data.token_index import write_index

        lengths, collator = findings.all_lengths().tolist(), self.collator
        write_index(path, lengths, self.train, self.processor, collator.media, collator.max_length)
        print(f"index of {findings.samples} samples is in {path}", file=sys.stderr)


def _spec(config: Any, processor: Any, as_json: bool) -> "RoutingSpec | None":
    """How the model's tokens are routed; None, which is said, where this is not known before it is loaded."""
    from moka_peft import RoutingSpec

    try:
        return RoutingSpec.from_pretrained(config, processor)
    except (ValueError, TypeError) as error:
        if not as_json:
            print(f"no turns are shown: {error}")
        return None


def _report(
    read: "dict[str, tuple[Findings | None, list[str]]]", problems: list[str], recipe: Path, as_json: bool
) -> None:
    if as_json:
        parts = {part: found.summary() if found else {"problems": lines} for part, (found, lines) in read.items()}
        print(json.dumps({"recipe": str(recipe), "problems": len(problems), "data": parts}))
    else:
        for part, (findings, _) in read.items():
            if findings is not None:
                print("\n".join(f"data.{part}: {line}" for line in describe(findings)))
    for problem in problems[:SHOWN]:
        print(f"moka: {problem}", file=sys.stderr)


def describe(findings: "Findings") -> list[str]:
    """A few lines on a source: how many samples, how long, and what their tokens are."""
    facts = findings.summary()
    length, bad = facts["length"], f", {len(findings.bad)} of them bad" if findings.bad else ""
    lines = [
        f"{findings.samples} samples of {length['min']} to {length['max']} tokens{bad} "
        f"(median {length['median']:.0f}, mean {length['mean']:.0f}, p95 {length['p95']:.0f})",
        "tokens: " + ", ".join(f"{kind} {share:.0%}" for kind, share in facts["share_by_kind"].items() if share),
    ]
    if turns := {("in no turn" if turn == "0" else f"turn {turn}"): s for turn, s in facts["share_by_turn"].items()}:
        lines.append("turns: " + ", ".join(f"{name} {share:.0%}" for name, share in turns.items() if share))
    return lines
