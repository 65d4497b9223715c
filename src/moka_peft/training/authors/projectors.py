"""The projectors' weights under the authors' names and under ours, `QFormerProjector`'s.

Theirs are BERT's: a masked language model with cross-attention in every layer, as in the published code of BLIP-2's
Q-Former. Its forward without text runs, per layer, self-attention, cross-attention and the feed-forward network that is
called `intermediate_query` and `output_query`; `intermediate` and `output` serve text, which the projectors never
get. A folder without any `*_query` is taken for plain BERT layers, whose `intermediate` and `output` serve all tokens.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from torch import Tensor

KINDS = {"vision_projector": "visual", "audio_projector": "audio"}
OURS = {
    "vl_projector": "vision_projector",
    "multi_modal_projector": "vision_projector",
    "al_projector": "audio_projector",
}
"""What their models call a projector -> what the composite does; the visual-text code has a name of its own."""

KEY = re.compile(rf"(?P<stem>(?:base_model\.model\.)?(?:model\.)?)(?P<module>{'|'.join(OURS)})\.(?P<rest>.+)")
LAYER = re.compile(r"\w+_Qformer\.bert\.encoder\.layer\.(\d+)\..+|qformer\.encoder\.layer\.(\d+)\..+")
FOR_TEXT = re.compile(
    r"\w+_Qformer\.(?:cls\..+|bert\.(?:pooler\..+|embeddings\.(?:(?:word|position|token_type)_embeddings\.weight"
    r"|position_ids)|encoder\.layer\.\d+\.(?:intermediate|output)\..+))"
)
ATTENTION = {
    "self.query": "attention.query",
    "self.key": "attention.key",
    "self.value": "attention.value",
    "output.dense": "output.dense",
    "output.LayerNorm": "output.LayerNorm",
}


@dataclass(frozen=True)
class Projectors:
    """weights: by our names, "vision_projector.norm.weight". modules: theirs, by ours. for_text: keys of what is
    dropped."""

    weights: dict[str, Tensor] = field(default_factory=dict)
    modules: dict[str, str] = field(default_factory=dict)
    for_text: list[str] = field(default_factory=list)


def names(kind: str, layers: int, *, query: bool = True) -> dict[str, str]:
    """The names of one projector's weights, theirs -> ours; kind: "visual" or "audio".

    query: whether the feed-forward networks are called `*_query`.
    """
    bert, suffix = f"{kind}_Qformer.bert.", "_query" if query else ""
    modules = {f"{kind}_ln": "norm", f"{bert}embeddings.LayerNorm": "qformer.layernorm"}
    modules |= {f"{kind}_proj.{index}": f"proj.{index}" for index in (0, 2)}
    for layer in range(layers):
        theirs, ours = f"{bert}encoder.layer.{layer}.", f"qformer.encoder.layer.{layer}."
        for block in ("attention", "crossattention"):
            modules |= {f"{theirs}{block}.{old}": f"{ours}{block}.{new}" for old, new in ATTENTION.items()}
        for part in ("intermediate{}.dense", "output{}.dense", "output{}.LayerNorm"):
            modules[theirs + part.format(suffix)] = ours + part.format("_query")
    weights = {f"{old}.{end}": f"{new}.{end}" for old, new in modules.items() for end in ("weight", "bias")}
    return {f"{kind}_query_tokens": "queries", **weights}


def find_projector_keys(keys: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Those keys that belong to a projector, as (their module, name in it)."""
    matches = {key: KEY.fullmatch(key) for key in keys}
    return {key: (match["module"], match["rest"]) for key, match in matches.items() if match is not None}


def read_projectors(weights: Mapping[str, Tensor]) -> Projectors:
    """Reads the projectors among `weights`, whose other keys it leaves alone.

    Raises ValueError where one is incomplete or holds what is not known to be without use.
    """
    found, read = find_projector_keys(weights), Projectors()
    for module in sorted({module for module, _ in found.values()}):
        own = {rest: key for key, (owner, rest) in found.items() if owner == module}
        ours = OURS[module]
        if ours in read.modules:
            raise ValueError(f"`source` holds two {ours}s: {module!r} and {read.modules[ours]!r}. Keep one.")
        query = any(".intermediate_query." in rest for rest in own)
        table = names(KINDS[ours], layers_of(own), query=query)
        check_names(set(own), set(table), f"`source`: {module}", known=FOR_TEXT)
        read.modules[ours] = module
        read.weights.update({f"{ours}.{table[rest]}": weights[own[rest]] for rest in table})
        read.for_text.extend(key for rest, key in own.items() if rest not in table)
    return read


def layers_of(rests: Iterable[str]) -> int:
    """How many layers these names count, theirs or ours."""
    numbers = [int(match[1] or match[2]) for rest in rests if (match := LAYER.fullmatch(rest)) is not None]
    return 1 + max(numbers, default=0)


def check_names(found: set[str], expected: set[str], what: str, known: re.Pattern[str] | None = None) -> None:
    """Raises ValueError for names that are missing, or that neither are expected nor match `known`."""
    if missing := sorted(expected - found):
        raise ValueError(
            f"{what} lacks {len(missing)} weights, the first is {missing[0]!r}: expected a Q-Former projector, with "
            "cross-attention in every layer, whole. Take the complete file."
        )
    stray = sorted(name for name in found - expected if known is None or not known.fullmatch(name))
    if stray:
        raise ValueError(
            f"{what} holds {len(stray)} weights that a Q-Former projector has no place for: "
            f"{', '.join(stray[:3])}. They would be lost, so nothing is written."
        )
