"""All that a folder of the authors' code holds: an adapter, projectors, or both, with nothing left unexplained."""

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from moka_peft.training.authors.factors import Factors, find_factors, read_factors
from moka_peft.training.authors.folder import EMBEDDINGS, AuthorsFolder, read_folder
from moka_peft.training.authors.projectors import Projectors, find_projector_keys, read_projectors


@dataclass(frozen=True)
class Checkpoint:
    """factors: None after stage 1, which trains projectors alone. embeddings: keys of those that stage 1 saved beside
    them, and that the audio-visual-text stage 2 did not read."""

    found: AuthorsFolder
    factors: Factors | None
    projectors: Projectors
    embeddings: list[str]

    @property
    def modules_to_save(self) -> list[str]:
        """Our names of the projectors."""
        return sorted(self.projectors.modules)

    @property
    def dropped(self) -> dict[str, int]:
        """What has no use here, by name with `*` for numbers, and how often."""
        keys = [*(self.factors.unused if self.factors else ()), *self.projectors.for_text, *self.embeddings]
        return dict(Counter(re.sub(r"\.\d+\.", ".*.", key) for key in sorted(keys)))


def read_checkpoint(folder: Path) -> Checkpoint:
    """Reads a folder. Raises FileNotFoundError or ValueError where it is not whole, or holds what is not known."""
    found = read_folder(folder)
    factors = read_factors(found.weights) if found.has_adapter else None
    embeddings = [key for key in found.weights if EMBEDDINGS.fullmatch(key) and factors is None]
    known = {*find_factors(found.weights), *find_projector_keys(found.weights), *embeddings}
    if unknown := sorted(set(found.weights) - known):
        raise ValueError(
            f"`source` holds {len(unknown)} weights that are not known: {', '.join(unknown[:3])}. They would be lost, "
            "so nothing is written. Expected factors of the adapter, and projectors."
        )
    return Checkpoint(found, factors, read_projectors(found.weights), embeddings)
