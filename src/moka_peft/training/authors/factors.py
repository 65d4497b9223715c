"""The weights of the adapted Linears under the authors' names: recognised, and checked to be all there."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor

from moka_peft.training.authors.forms import FORMS, Form

KEY = re.compile(
    r"(?P<stem>(?:base_model\.model\.)?(?:model|language_model)(?:\.language_model|\.model)?\.layers)"
    r"\.(?P<path>\d+\.[\w.]+)\.lora_(?P<matrix>[AB])(?P<number>\d?)(?P<words>(?:\.\w+)*)\.weight"
)
Place = tuple[str, str]
"""A weight's place: the path of its Linear below the layers ("0.self_attn.q_proj"), and its factor ("moka_B")."""


@dataclass(frozen=True)
class Factors:
    """form: a name of `FORMS`. stem: what is written before a layer's number. name: PEFT's name of the adapter where
    keys hold it. weights: by place, factors under our names. unused: keys of what is dropped. rank: of every A."""

    form: str
    stem: str
    name: str
    weights: dict[Place, Tensor]
    unused: list[str]
    rank: int

    @property
    def modules(self) -> list[str]:
        """Names of the adapted Linears, the same in every layer."""
        return sorted({path.rpartition(".")[2] for path, _ in self.weights})

    @property
    def layers(self) -> int:
        return 1 + max(int(path.partition(".")[0]) for path, _ in self.weights)


def find_factors(keys: Iterable[str]) -> dict[str, tuple[str, str, str, str]]:
    """Those keys that name a factor in one of the forms, as (stem, path, their factor, adapter name)."""
    found = {}
    for key in keys:
        if (match := KEY.fullmatch(key)) is not None:
            words = match["words"].split(".")[1:]
            kinds = [word for word in words if word in ("text", "image") and not match["number"]]
            factor = f"lora_{match['matrix']}{match['number']}" + "".join(f".{kind}" for kind in kinds)
            others = [word for word in words if word not in kinds]
            if _form_of(factor) and len(others) < 2:
                found[key] = (match["stem"], match["path"], factor, "".join(others))
    return found


def read_factors(weights: Mapping[str, Tensor]) -> Factors:
    """Reads the factors among `weights`, whose other keys it leaves alone.

    Raises ValueError where they are of no form or of several, incomplete, or of shapes that do not fit together.
    """
    found = find_factors(weights)
    form = _only("form", {name for *_, factor, _ in found.values() for name in FORMS if factor in FORMS[name].factors})
    stem = _only("path to the layers", {stem for stem, *_ in found.values()})
    name = _only("adapter name", {name for *_, name in found.values()})
    ours = FORMS[form].factors
    read = {(path, ours[factor]): weights[key] for key, (_, path, factor, _) in found.items() if factor in ours}
    unused = [key for key, (_, _, factor, _) in found.items() if factor not in ours]
    check_complete({path for path, _ in read}, set(read), FORMS[form])
    return Factors(form, stem, name, read, unused, check_shapes(read))


def check_complete(paths: set[str], places: set[Place], form: Form) -> None:
    """Raises ValueError where a Linear lacks a factor, or a layer a Linear that another one has: both codes adapt the
    Linears of some names in every layer."""
    layers = {path.partition(".")[0] for path in paths}
    names = {path.partition(".")[2] for path in paths}
    count = 1 + max(map(int, layers))
    lacking = [
        f"layers.{layer}.{name}.{factor}"
        for layer in range(count)
        for name in sorted(names)
        for factor in form.factors.values()
        if (f"{layer}.{name}", factor) not in places
    ]
    if lacking:
        raise ValueError(
            f"`source` lacks {len(lacking)} weights, the first is `{lacking[0]}` (as it is called here): expected "
            f"{', '.join(sorted(names))} of all {count} layers, each with {len(form.factors)} weights. The file is not "
            "whole, or its target modules cannot be named for all layers at once."
        )


def check_shapes(weights: Mapping[Place, Tensor]) -> int:
    """The one rank of all factors: A is [r, I], B [O, r]. Raises ValueError for other shapes."""
    first = weights[next(iter(weights))[0], "moka_A_text"]
    rank = first.shape[0] if first.ndim else 0
    for (path, factor), weight in weights.items():
        rows, columns = (weight.shape[:1], (rank,)) if factor == "moka_B" else ((rank,), _width(weights, path))
        if (*rows, *columns) != tuple(weight.shape):
            expected = f"[out, {rank}]" if factor == "moka_B" else f"[{rank}, {', '.join(map(str, columns))}]"
            raise ValueError(
                f"`source`: {factor} of layers.{path} is {list(weight.shape)}: expected {expected}. All weights must "
                "have one rank: ranks that differ by modality have no counterpart in `MokaConfig`."
            )
    return rank


def _width(weights: Mapping[Place, Tensor], path: str) -> tuple[int, ...]:
    """What a Linear's A's must have for columns."""
    return tuple(weights[path, "moka_A_text"].shape[1:2])


def _form_of(factor: str) -> str | None:
    return next((name for name, form in FORMS.items() if factor in {*form.factors, form.unused}), None)


def _only(what: str, found: set[str]) -> str:
    if not found:
        raise ValueError(
            "`source` holds no adapter of the authors' forms: expected keys that end in lora_A0.weight (audio-visual-"
            "text) or lora_A.text.weight (visual-text). An ordinary LoRA needs no import: PEFT opens it."
        )
    if len(found) > 1:
        raise ValueError(f"`source` holds more than one {what}: {', '.join(map(repr, sorted(found)))}. Keep one.")
    return found.pop()
