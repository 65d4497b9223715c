"""What `moka analyze` found, as tables for the terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from rich.console import Group
from rich.table import Table
from rich.text import Text

SHOWN_WORDS = 3

Result = Mapping[str, Any]


def summary(name: str, result: Result) -> Group:
    """A rich renderable of the few numbers that an analysis comes to."""
    tables = {
        "modalities": modalities,
        "dominance": dominance,
        "attention": attention,
        "subspaces": subspaces,
        "scales": scales,
    }
    title, table = tables[name](result)
    return Group(Text(f"{name}: {title}", "bold"), table)


def modalities(result: Result) -> tuple[str, Table]:
    """One row per choice of tokens that pass the adapter."""
    rows = result["rows"]
    groups = list(rows[0]["scores"])
    title = f"{result['metric']} where only these tokens of the prompt pass the adapter, {result['samples']} samples"
    shown = _table(["adapted", *groups, "same answers"])
    for row in rows:
        scores = [_score(row["scores"][group]) for group in groups]
        shown.add_row(row["name"], *scores, f"{row['agreement']:.0%}")
    return title, shown


def dominance(result: Result) -> tuple[str, Table]:
    """One row per kind of matrix: where its information comes from; above, how many tokens a sample has."""
    names = result["modalities"]
    title = f"whose tokens the matrices learn from, by Fisher information, {result['samples']} samples"
    shown = _table(["matrix", *names, "non-text dominance"])
    shown.add_row("(tokens of a sample)", *(f"{result['tokens'][modality]:.1f}" for modality in names), "")
    for matrix, shares in result["fisher_share"].items():
        share = result["dominance"].get(matrix)
        shown.add_row(
            matrix,
            *(f"{shares[modality]:.0%}" for modality in names),
            "not shared" if share is None else f"{share:.1%}",
        )
    return title, shown


def attention(result: Result) -> tuple[str, Table]:
    """One row per modality: how even its attention is, and the words (or tokens) that get most over an even spread."""
    text_asks = result["interaction"] == "text_query"
    question = " ".join(word["text"] for word in result["words"])
    title = f"of the words over media, “{question}”" if text_asks else f"of media over “{question}”"
    shown = _table(["modality", "entropy (1: even)", "most attended to"])
    share = np.array([each["weights"] for each in result["layers"]]).mean(0)  # [media tokens, words]
    even = np.array(result["even"])
    share = share / (even[:, None] if text_asks else even)
    for modality in dict.fromkeys(token["modality"] for token in result["media"]):
        entropy = np.mean([each["entropy"][modality] for each in result["layers"]])
        own = [place for place, token in enumerate(result["media"]) if token["modality"] == modality]
        names = [f"token {place}" for place in range(len(own))] if text_asks else _words(result)
        mean = share[own].mean(1 if text_asks else 0)
        most = sorted(range(len(names)), key=lambda i: -mean[i])[:SHOWN_WORDS]
        shown.add_row(modality, f"{entropy:.2f}", ", ".join(f"{names[i]} {mean[i]:.2f}x" for i in most))
    return title, shown


def _words(result: Result) -> list[str]:
    """The words; one that occurs twice, with its number."""
    texts = [word["text"] for word in result["words"]]
    return [f"{text} ({texts[: i + 1].count(text)})" if texts.count(text) > 1 else text for i, text in enumerate(texts)]


def subspaces(result: Result) -> tuple[str, Table]:
    """One row per pair of modalities: the mean cosine of their A's, beside that of random ones."""
    title = "mean cosine of the principal angles; 1: the same inputs (of B: outputs)"
    shown = _table(["pair", "mean", "least layer", "most", "random"])
    for key, matrix in (("layers", "A"), ("outputs", "B")):
        for pair in dict.fromkeys(tuple(each["pair"]) for each in result[key]):
            found = [each for each in result[key] if tuple(each["pair"]) == pair]
            layers = [_mean(found, "mean", number) for number in {each["layer"] for each in found}]
            numbers = [np.mean([each["mean"] for each in found]), min(layers), max(layers), _mean(found, "random_mean")]
            shown.add_row(f"{matrix}: {' and '.join(pair)}", *(f"{number:.3f}" for number in numbers))
    return title, shown


def _mean(found: Sequence[Result], key: str, layer: int | None = None) -> float:
    return float(np.mean([each[key] for each in found if layer is None or each["layer"] == layer]))


def scales(result: Result) -> tuple[str, Table]:
    """One row per lambda."""
    groups = list(result["rows"][0]["scores"])
    title = f"{result['metric']} at other lambdas, not trained again, {result['samples']} samples"
    shown = _table(["lambda", *groups, "loss", "same answers"])
    for row in result["rows"]:
        name = f"{row['cross_scale']}{' (trained)' if row['trained'] else ''}"
        scores = [_score(row["scores"][group]) for group in groups]
        shown.add_row(name, *scores, f"{row['loss']:.3f}", f"{row['agreement']:.0%}")
    return title, shown


def _score(score: Mapping[str, Any]) -> str:
    return f"{score['accuracy']:.1%}" if "accuracy" in score else f"{score['value']:.3f}"


def _table(columns: Sequence[str]) -> Table:
    shown = Table()
    for place, name in enumerate(columns):
        shown.add_column(name, justify="right" if place else "left")
    return shown
