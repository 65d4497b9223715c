"""Published datasets in their published layouts: names, splits, options, and what opens each.

Rows become conversations when they are read; docs/datasets.md says where to get each and where its files go.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from moka_peft.data.containers.contents import Container
from moka_peft.data.datasets.a_okvqa import open_a_okvqa
from moka_peft.data.datasets.audiocaps import open_audiocaps
from moka_peft.data.datasets.ave import open_ave
from moka_peft.data.datasets.libri_sqa import SPEECH, open_libri_sqa
from moka_peft.data.datasets.librispeech import FOLDERS, open_librispeech
from moka_peft.data.datasets.llava_instruct import open_llava_instruct
from moka_peft.data.datasets.music_avqa import open_music_avqa
from moka_peft.data.datasets.video_llava import open_video_llava

__all__ = ["DATASETS", "Dataset", "check_options", "open_dataset"]

TURNS = {"turns": ("multi", "single")}
REASONING = {"reasoning": (False, True)}


@dataclass(frozen=True)
class Dataset:
    """What opens a dataset, its splits and its options with the values that each may have; the first is the default."""

    open: Callable[..., list[Container]]
    splits: tuple[str, ...] = ("train",)
    options: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)


DATASETS = {
    "music_avqa": Dataset(open_music_avqa, ("train", "val", "test"), REASONING),
    "ave": Dataset(open_ave, ("train", "val", "test", "all"), REASONING),
    "video_llava": Dataset(open_video_llava, options=TURNS),
    "audiocaps": Dataset(open_audiocaps, ("train", "val", "test")),
    "llava_instruct": Dataset(open_llava_instruct, options=TURNS),
    "a_okvqa": Dataset(open_a_okvqa, ("train", "val")),
    "librispeech": Dataset(open_librispeech, tuple(FOLDERS)),
    "libri_sqa": Dataset(open_libri_sqa, tuple(SPEECH), {"part": (1, 2)}),
}


def open_dataset(name: str, folder: str | Path, split: str = "train", **options: Any) -> list[Container]:
    """The rows of a dataset's split in its folder. Raises ValueError for unknown options, FileNotFoundError for what
    is not in the folder."""
    if problems := check_options(name, {"split": split, **options}):
        raise ValueError("; ".join(f"`{key}` of {name} {text}" for key, text in problems))
    return DATASETS[name].open(Path(folder).absolute(), split, **options)  # media found below it are looked up again


def check_options(name: str, options: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What is wrong with a dataset's `split` and options, as (option, what is wrong)."""
    known = {"split": DATASETS[name].splits, **DATASETS[name].options}
    found = []
    for key, value in options.items():
        if key not in known:
            found.append((key, f"has no meaning: expected some of {', '.join(known)}. Remove it."))
        elif not any(value == allowed and type(value) is type(allowed) for allowed in known[key]):
            expected = " or ".join(str(one).lower() if isinstance(one, bool) else str(one) for one in known[key])
            found.append((key, f"is wrong: expected {expected}, got {value}. Correct it."))
    return found
