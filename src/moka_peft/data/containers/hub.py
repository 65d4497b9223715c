"""Hugging Face `datasets`: a folder that `save_to_disk` wrote, or one of the hub."""

from pathlib import Path
from typing import Any

from moka_peft.data.containers.contents import NumberedRows, without_nulls
from moka_peft.data.containers.parquet import check_columns
from moka_peft.data.containers.requirements import require
from moka_peft.data.formats import Format


class HubRows(NumberedRows):
    """Rows of a dataset, which `datasets` maps into memory from its files. Its media stay encoded."""

    def __init__(self, dataset: Any, name: str, folder: Path | None = None, format: Format | None = None):
        super().__init__(Path(name), folder or Path())
        check_columns(name, dataset.column_names, format)
        self.sizes = [len(dataset)]
        self.fingerprint = dataset._fingerprint
        self._rows = dataset.with_format("arrow")  # Arrow's own values: images and recordings as `{bytes, path}`

    def data(self, index: int) -> Any:
        return without_nulls(self._rows[index].to_pylist()[0])


def open_saved(path: Path, split: str | None, folder: Path | None, format: Format | None) -> HubRows:
    """A dataset from disk. Raises ValueError where it has splits and none is named."""
    dataset = require("datasets").load_from_disk(str(path))
    return HubRows(_one_split(dataset, split, str(path)), str(path), folder or path, format)


def open_hub(name: str, split: str | None, config: str | None, folder: Path | None, format: Format | None) -> HubRows:
    """A dataset of the hub, downloaded to the cache of `datasets` if it is not there."""
    dataset = require("datasets").load_dataset(name, config, split=split)
    return HubRows(_one_split(dataset, None, name), name, folder, format)


def _one_split(dataset: Any, split: str | None, name: str) -> Any:
    if not isinstance(dataset, dict):
        return dataset
    if split not in dataset:
        names = ", ".join(dataset)
        raise ValueError(f"`split` of dataset {name} is wrong: expected one of {names}, got {split}. Set it.")
    return dataset[split]
