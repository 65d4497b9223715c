"""`moka validate`: everything that can be known about a run before a model is loaded."""

import itertools
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from moka_peft.cli import quiet
from moka_peft.cli.inspected import SHOWN, Inspected, joined, report

if TYPE_CHECKING:
    from moka_peft import RoutingSpec
    from moka_peft.training import Findings, Recipe
    from moka_peft.training.recipe_data import Source


def run(
    recipe: Annotated[Path, typer.Argument(help="YAML file, for example recipes/quickstart.yaml")],
    settings: Annotated[list[str] | None, typer.Argument(help="key=value over the recipe")] = None,
    draw: Annotated[int, typer.Option(min=0, help="how many of the training samples are drawn")] = 1,
    limit: Annotated[int | None, typer.Option(min=1, help="look at the first samples of each source only")] = None,
    sample: Annotated[int | None, typer.Option(min=1, help="look at so many of each source, drawn at random")] = None,
    workers: Annotated[int, typer.Option(min=0, help="processes that read samples")] = 0,
    write_index: Annotated[Path | None, typer.Option(help="file for the training samples' token lengths")] = None,
    tiny: Annotated[
        bool, typer.Option("--tiny", help="Check what `moka train --tiny` trains on: made-up data, tiny models.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")] = False,
) -> None:
    """Check a recipe, its files and its samples; loads no model."""
    from moka_peft.training import load_recipe

    quiet()
    if limit is not None and sample is not None:
        raise typer.BadParameter("--limit and --sample choose samples in two ways: leave one of them out")
    if write_index is not None and (limit is not None or sample is not None):
        raise typer.BadParameter("an index holds all samples: leave --limit and --sample out")
    unread = _indices_in(recipe) if write_index is not None else []  # a recipe may name the index to be written
    plan = load_recipe(recipe, [*(settings or ()), *unread], tiny=tiny)
    check = _Check(plan, limit, sample, workers, as_json)
    found = {part: check.inspect(part) for part in ("train", "eval") if getattr(plan.data, part) is not None}
    sources = [source for part in found.values() for source in part]
    problems = [f"{source.label}: {problem}" for source in sources for problem in source.problems]
    report(found, problems, recipe, as_json)
    train = joined(found["train"])
    if train is not None and not as_json:
        check.draw(draw, train)
    if write_index is not None and train is not None:
        check.write_index(write_index, train)
    if problems and plan.data.on_bad_sample == "raise" or any(source.findings is None for source in sources):
        raise ValueError(f"{recipe} is not valid: {len(problems)} problems, at most {SHOWN} of them above.")
    if not as_json:
        print(f"{recipe} is valid" + (f"; {len(problems)} bad samples will be skipped" if problems else ""))


class _Check:
    """A recipe's data, opened and read once."""

    def __init__(self, plan: "Recipe", limit: int | None, sample: int | None, workers: int, as_json: bool):
        from moka_peft.cli.route import open_base
        from moka_peft.training import open_collator
        from moka_peft.training.reading import held_out_collator

        self.plan, self.chosen = plan, {"limit": limit, "drawn": sample, "workers": workers}
        self.processor, config = open_base(**plan.model.model_dump(exclude={"dtype", "start_from"}))
        self.collator, self.held_out = open_collator(plan, self.processor), held_out_collator(plan, self.processor)
        self.spec = _spec(config, self.processor, as_json)
        self.train: list[Any] = []

    def inspect(self, part: str) -> list[Inspected]:
        """What each source of one part of the data holds."""
        sources = getattr(self.plan.data, part)
        if not isinstance(sources, list):
            return [self._inspect(part, sources, f"data.{part}", "")]
        names = [str(source.name or source.path or source.hub) for source in sources]
        return [
            self._inspect(part, source, f"data.{part}.{place}", f" ({name})")
            for place, (source, name) in enumerate(zip(sources, names, strict=True))
        ]

    def _inspect(self, part: str, source: "Source", label: str, name: str) -> Inspected:
        from moka_peft.training import inspect_samples, open_source

        # in skip mode all bad rows are found at once; what is done about them is the recipe's own setting
        data = self.plan.data.model_copy(update={"on_bad_sample": "skip"})
        try:
            samples = open_source(source, data)
        except (OSError, ValueError) as error:
            return Inspected(label, name, None, [str(error)])
        if part == "train":
            self.train.append(samples)
        collator = self.collator if part == "train" else self.held_out
        findings = inspect_samples(self.processor, samples, collator=collator, spec=self.spec, **self.chosen)
        return Inspected(label, name, findings, findings.problems)

    def samples(self) -> Any:
        """The training samples of all sources."""
        from moka_peft.data.mixing import MixedSamples

        return MixedSamples(self.train) if isinstance(self.plan.data.train, list) else self.train[0]

    def draw(self, count: int, findings: "Findings") -> None:
        """Draws the first good training samples as `moka route` does."""
        from moka_peft.cli.route import show

        if self.spec is None:
            return
        bad, samples = set(findings.bad), self.samples()
        good = (position for position in findings.positions if position not in bad)
        for position in itertools.islice(good, count):
            batch = self.collator([samples[position]])
            print(f"data.train, sample {position} ({samples[position].id}):")
            show(batch["input_ids"], batch["attention_mask"], self.spec, self.processor.tokenizer)

    def write_index(self, path: Path, findings: "Findings") -> None:
        from moka_peft.data.token_index import write_index

        lengths, collator = findings.all_lengths().tolist(), self.collator
        write_index(path, lengths, self.samples(), self.processor, collator.media, collator.max_length)
        print(f"index of {findings.samples} samples is in {path}", file=sys.stderr)


def _indices_in(recipe: Path) -> list[str]:
    """Settings that take the names of indices out of a recipe."""
    import yaml

    from moka_peft.training.recipe_file import RecipeLoader

    try:
        data = yaml.load(recipe.read_text(encoding="utf-8"), Loader=RecipeLoader)["data"]
        several = isinstance(data["train"], list)
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError):
        return []  # what is wrong is told when the recipe is read
    return ["data.index=null"] if several else ["data.index=null", "data.train.index=null"]


def _spec(config: Any, processor: Any, as_json: bool) -> "RoutingSpec | None":
    """How the model's tokens are routed; None, which is said, where this is not known before it is loaded."""
    from moka_peft import RoutingSpec

    try:
        return RoutingSpec.from_pretrained(config, processor)
    except (ValueError, TypeError) as error:
        if not as_json:
            print(f"no turns are shown: {error}")
        return None
