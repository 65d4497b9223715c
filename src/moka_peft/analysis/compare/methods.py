"""The methods that `moka compare` knows by name, and what each of them sets in a recipe's adapter."""

from typing import Any, NamedTuple

from moka_peft.training.methods import TITLES


class Variant(NamedTuple):
    """A method in one form: what tables call it, and its keys of the section `adapter`."""

    title: str
    adapter: dict[str, Any]


VARIANTS: dict[str, Variant] = {
    **{method: Variant(title, {"method": method}) for method, title in TITLES.items()},
    "moka": Variant(TITLES["moka"], {"method": "moka", "interaction": "cross_attention"}),
    "moka_text_query": Variant("MokA, text queries", {"method": "moka", "interaction": "text_query"}),
    "moka_mean": Variant("MokA, mean", {"method": "moka", "interaction": "mean"}),
    "moka_no_interaction": Variant("MokA, no interaction", {"method": "moka", "interaction": "none"}),
    "none": Variant("no adapter", {"method": "none"}),
}
"""Name of a variant -> what it is; the methods of a recipe under their own names, and forms of MokA."""

PAPER_TABLE = (
    "lora", "multiple_lora", "lora_moe", "dora", "hydra_lora", "uni_modal_lora", "uni_mm_lora", "uni_mm_lora_gate",
    "moka_text_query", "moka_mean", "moka", "imod",
)  # fmt: skip
"""The rows of the table in MokA's paper (arXiv 2506.05191), and IMoD, which came after it."""
