"""What `moka validate` found in each source of a recipe, as text and for other programs."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from moka_peft.training import Findings

SHOWN = 20


@dataclass
class Inspected:
    """What one source holds; no findings where it cannot be opened. name: of several, which it is."""

    label: str
    name: str
    findings: "Findings | None"
    problems: list[str]


def joined(sources: "list[Inspected]") -> "Findings | None":
    """What all sources of a part hold; None where one cannot be opened."""
    from moka_peft.training.validation import join_findings

    found = [source.findings for source in sources if source.findings is not None]
    return join_findings(found) if len(found) == len(sources) else None


def report(found: dict[str, list[Inspected]], problems: list[str], recipe: Path, as_json: bool) -> None:
    """Shows what the sources of a recipe's data hold, as text or as one JSON object, and what is wrong with them."""
    if as_json:
        parts = {part: _as_dict(sources) for part, sources in found.items()}
        print(json.dumps({"recipe": str(recipe), "problems": len(problems), "data": parts}))
    else:
        for part, sources in found.items():
            shown = [(source.label + source.name, source.findings) for source in sources]
            shown += [(f"data.{part}", joined(sources))] if len(sources) > 1 else []
            for label, findings in shown:
                print("".join(f"{label}: {line}\n" for line in describe(findings)) if findings else "", end="")
    for problem in problems[:SHOWN]:
        print(f"moka: {problem}", file=sys.stderr)


def _as_dict(sources: list[Inspected]) -> dict[str, Any]:
    """The numbers of a part for other programs; of several sources, of each and of all."""
    each = [source.findings.summary() if source.findings else {"problems": source.problems} for source in sources]
    if len(sources) == 1:
        return each[0]
    both = joined(sources)
    return {**(both.summary() if both else {}), "sources": each}


def describe(findings: "Findings") -> list[str]:
    """A few lines on a source: how many samples, how long, and what their tokens are."""
    facts = findings.summary()
    length, bad = facts["length"], f", {len(findings.bad)} of them bad" if findings.bad else ""
    of_all = "" if findings.samples == findings.total else f" (out of {findings.total})"
    lines = [
        f"{findings.samples} samples{of_all} of {length['min']} to {length['max']} tokens{bad} "
        f"(median {length['median']:.0f}, mean {length['mean']:.0f}, p95 {length['p95']:.0f})",
        "media: " + (", ".join(f"{count} {kind}" for kind, count in facts["media"].items()) or "none"),
        "tokens: " + ", ".join(f"{kind} {share:.0%}" for kind, share in facts["share_by_kind"].items() if share),
    ]
    if turns := {("in no turn" if turn == "0" else f"turn {turn}"): s for turn, s in facts["share_by_turn"].items()}:
        lines.append("turns: " + ", ".join(f"{name} {share:.0%}" for name, share in turns.items() if share))
    return lines
