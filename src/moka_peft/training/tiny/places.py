"""Where a tiny run writes: in a folder `tiny` beside the run's own, that can be removed as a whole."""

import tempfile
from collections.abc import Callable
from pathlib import Path


def tiny_folder(output_dir: str | Path) -> Path:
    """Holds the tiny runs of all recipes that write beside each other, and what they share: `parts` and `data`."""
    return Path(output_dir).parent / "tiny"


def tiny_run(output_dir: str | Path) -> Path:
    """The output folder of a recipe's tiny run: never the recipe's own, which stays free for the run itself."""
    return tiny_folder(output_dir) / Path(output_dir).name


def made(place: Path, write: Callable[[Path], None]) -> Path:
    """Makes a file or folder whole or not at all, unless it is there; of several processes that make it one wins."""
    if place.exists():
        return place
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place.parent) as folder:
        partial = Path(folder) / place.name
        write(partial)
        try:
            partial.rename(place)
        except OSError:
            if not place.exists():
                raise
    return place
