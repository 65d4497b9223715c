"""Small made-up datasets in the published layouts, with real media files: for trying recipes, and for tests."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from moka_peft.data.datasets import DATASETS, check_options
from moka_peft.data.generated.pictures import write_a_okvqa, write_llava_instruct
from moka_peft.data.generated.sounds import write_audiocaps, write_libri_sqa, write_librispeech
from moka_peft.data.generated.videos import write_ave, write_music_avqa, write_video_llava

__all__ = ["WRITERS", "write_generated"]

WRITERS: dict[str, Callable[..., None]] = {
    "music_avqa": write_music_avqa,
    "ave": write_ave,
    "video_llava": write_video_llava,
    "audiocaps": write_audiocaps,
    "llava_instruct": write_llava_instruct,
    "a_okvqa": write_a_okvqa,
    "librispeech": write_librispeech,
    "libri_sqa": write_libri_sqa,
}


def write_generated(
    name: str, folder: str | Path, *, samples: int = 4, split: str = "train", seed: int = 0, **options: Any
) -> None:
    """Writes `samples` rows (of one question each, but for the conversations of llava_instruct) of a split of
    dataset NAME, with their media, such that `{name, folder, split, **options}` opens them.

    The files depend on the arguments alone. Other splits may be written into the same folder. Raises ValueError for
    a name, split or option that the dataset does not have.
    """
    if name not in DATASETS:
        raise ValueError(f"`name` is no dataset: expected one of {', '.join(DATASETS)}, got {name}.")
    if samples < 1:
        raise ValueError(f"`samples` is too small: expected at least 1, got {samples}.")
    if problems := check_options(name, {"split": split, **options}):
        raise ValueError("; ".join(f"`{key}` of {name} {text}" for key, text in problems))
    place = DATASETS[name].splits.index(split)
    WRITERS[name](Path(folder), samples, split, 1000 * seed + place, **options)
