"""Embeddings find their placeholders, row by row."""

import pytest
import torch

from moka_peft.composite.filling import fill_placeholders, repeat_rows

MASK = torch.tensor([[0, 1, 1, 0], [0, 0, 0, 0], [1, 0, 0, 0]], dtype=torch.bool)


def test_placeholders_are_filled_in_order():
    embeds = torch.tensor([[1.0], [2.0], [3.0]])
    filled = fill_placeholders(torch.zeros(3, 4, 1), MASK, embeds, "image")
    assert filled[..., 0].tolist() == [[0, 1, 2, 0], [0, 0, 0, 0], [3, 0, 0, 0]]


def test_repeated_rows_keep_their_order():
    embeds = torch.tensor([[1.0], [2.0], [3.0]])
    assert repeat_rows(embeds, MASK, 2, "image")[:, 0].tolist() == [1, 2, 1, 2, 3, 3]


def test_a_different_number_is_refused():
    for function in (
        lambda: fill_placeholders(torch.zeros(3, 4, 1), MASK, torch.zeros(2, 1), "audio"),
        lambda: repeat_rows(torch.zeros(2, 1), MASK, 2, "audio"),
    ):
        with pytest.raises(
            ValueError, match=r"expected 3 embeddings for the audio tokens \(per row \[2, 0, 1\]\), got 2"
        ):
            function()
