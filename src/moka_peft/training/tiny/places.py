"""Where a tiny run writes: in a folder `tiny` beside the run's own, that can be removed as a whole."""

import tempfile
from collections.abc import Callable
from pathlib import Path

SHARED = ("parts", "data")
MARK = "made-by-tiny.txt"


def tiny_folder(output_dir: str | Path) -> Path:
    """Holds the tiny runs of all recipes that write beside each other, and what they share: `parts` and `data`."""
    return Path(output_dir).parent / "tiny"


def claim_tiny_folder(output_dir: str | Path) -> Path:
    """Makes `tiny_folder` and marks it, so that no run of somebody's own is taken for a tiny one and replaced.

    Raises ValueError where a folder of that name is not ours, or the run would lie where the shared files are.
    """
    if Path(output_dir).name in ("", "..", *SHARED):
        raise ValueError(
            f"`output_dir` has no name for a tiny run: expected a name other than {' and '.join(SHARED)}, got "
            f"{output_dir}. Set another `output_dir`."
        )
    folder = made(tiny_folder(output_dir), _mark)
    if not (folder / MARK).is_file():
        raise ValueError(
            f"`output_dir` has a folder beside it that --tiny did not make: {folder}. Rename it, or set another "
            "`output_dir`."
        )
    return folder


def _mark(place: Path) -> None:
    place.mkdir()
    (place / MARK).write_text("Runs of `moka train RECIPE --tiny`, their models and their data.\n", encoding="utf-8")


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
