"""What a picture of attention shows, as arrays: `measure_attention`'s weights over those of an even spread."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

MOST_WORDS, MOST_PANELS, MOST_MAPS = 32, 4, 3

Result = Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Panel:
    """A column of the picture: one modality in one turn.

    `share` [layers, projections, media tokens, words]: attention over that of an even spread; nan where a layer lacks
    the projection. `text_asks`: whether the words attend to the media, instead of the media to the words.
    """

    modality: str
    title: str
    words: list[str]
    share: np.ndarray
    text_asks: bool

    @property
    def by_projection(self) -> np.ndarray:
        """[layers, projections, keys]: the mean over the tokens that attend."""
        return self.share.mean(3 if self.text_asks else 2)

    @property
    def by_layer(self) -> np.ndarray:
        """[layers, keys]: the mean over the projections, too."""
        return np.nanmean(self.by_projection, 1)

    def by_token(self, layer: int) -> np.ndarray:
        """[attending tokens, keys] of a layer: the mean over its projections."""
        mean = np.nanmean(self.share[layer], 0)
        return mean.T if self.text_asks else mean


@dataclass(frozen=True, eq=False)
class PatchMap:
    """An image's patches [rows, columns] by their attention to one word, over an even spread; `png`: the image."""

    word: str
    share: np.ndarray
    png: str


def layers_of(result: Result) -> list[int]:
    """The numbers of the adapted layers."""
    return sorted({each["layer"] for each in result["layers"]})


def projections_of(result: Result) -> list[str]:
    """The projections' names, in the order in which they run."""
    return list(dict.fromkeys(each["projection"] for each in result["layers"]))


def least_even(result: Result) -> int:
    """The number of the layer whose attention is least even, over its projections and the modalities."""
    means = {}
    for number in layers_of(result):
        found = [each["entropy"].values() for each in result["layers"] if each["layer"] == number]
        means[number] = np.mean([value for values in found for value in values])
    return min(means, key=means.__getitem__)


def panels_of(result: Result) -> list[Panel]:
    """One panel for each modality of each turn: the newest turns where there are many, and the words whose attention
    varies most where there are many."""
    share, media, words = _share(result), result["media"], result["words"]
    pairs = list(dict.fromkeys((token["turn"], token["modality"]) for token in media))[-MOST_PANELS:]
    several = len({turn for turn, _ in pairs}) > 1
    panels = []
    for turn, modality in pairs:
        rows = [i for i, token in enumerate(media) if (token["turn"], token["modality"]) == (turn, modality)]
        columns = _most_varied([i for i, word in enumerate(words) if word["turn"] == turn], share[:, :, rows])
        text_asks = result["interaction"] == "text_query"
        title = f"{modality}, {len(rows)} tokens" + (f", turn {turn}" if several else "")
        shown = [words[i]["text"] for i in columns]
        panels.append(Panel(modality, title, shown, share[:, :, rows][..., columns], text_asks))
    return panels


def patch_maps(result: Result, layer: int) -> list[PatchMap]:
    """The first image's patches in a layer, for the words on which they differ most; empty without such an image."""
    if not result["images"]:
        return []
    image, share = result["images"][0], _share(result)[layers_of(result).index(layer)]
    rows, columns = image["grid"]
    patches = np.nanmean(share[:, image["first"] : image["first"] + rows * columns], 0)  # [patches, words]
    turn = result["media"][image["first"]]["turn"]
    words = [i for i, word in enumerate(result["words"]) if word["turn"] == turn]
    chosen = sorted(words, key=lambda i: -np.std(_log2(patches[:, i])))[:MOST_MAPS]
    return [
        PatchMap(result["words"][i]["text"], patches[:, i].reshape(rows, columns), image["png"]) for i in sorted(chosen)
    ]


def _share(result: Result) -> np.ndarray:
    """[layers, projections, media tokens, words]"""
    numbers, projections = layers_of(result), projections_of(result)
    shape = (len(numbers), len(projections), len(result["media"]), len(result["words"]))
    share, even = np.full(shape, np.nan), np.array(result["even"])
    even = even[:, None] if result["interaction"] == "text_query" else even[None]
    for each in result["layers"]:
        place = numbers.index(each["layer"]), projections.index(each["projection"])
        share[place] = np.array(each["weights"]) / even
    return share


def _most_varied(columns: list[int], share: np.ndarray) -> list[int]:
    if len(columns) <= MOST_WORDS:
        return columns
    spread = {i: np.nanstd(_log2(share[..., i])) for i in columns}
    return sorted(sorted(columns, key=lambda i: -spread[i])[:MOST_WORDS])


def _log2(share: np.ndarray) -> np.ndarray:
    return np.log2(np.maximum(share, 1e-6))
