"""Every family's tiny model reads its media and its text, and a row alone equals that row in a batch."""

import pytest
import torch

from .weights import NEVER_GENERATED, dead_parameters
from .zoo import FAMILIES

MATTERS, EQUAL = 1e-3, 1e-4  # logits are near 1; rounding between batch shapes stays near 1e-5


@pytest.fixture(scope="module", params=FAMILIES)
def family(request):
    return FAMILIES[request.param]


@pytest.fixture(scope="module")
def model(family):
    return family.build()


@torch.no_grad()
def row_logits(family, model, rows, **options):
    """Logits [S, V] of each row, without padding."""
    inputs = family.inputs(rows, **options)
    logits = model.get_submodule(family.part)(**inputs).logits
    return [row[mask.bool()] for row, mask in zip(logits, inputs["attention_mask"], strict=True)]


def last_logits(family, model, row, **options):
    return row_logits(family, model, [row], **options)[0][-1]


def difference(a, b):
    return (a - b).abs().max().item()


def test_no_parameter_is_dead(model):
    assert dead_parameters(model) == []


def test_media_and_text_matter(family, model):
    for letter in family.media:
        base = last_logits(family, model, f"x{letter}yz")
        assert difference(base, last_logits(family, model, f"x{letter}yz", media_seed=1)) > MATTERS
        assert difference(base, last_logits(family, model, f"x{letter}wz")) > MATTERS


def test_a_row_alone_equals_the_row_in_a_batch(family, model):
    for letter in family.media:
        rows = [f"x{letter}y|pp|q{letter}", "qw", f"x{letter}{letter}y|p|{letter}qrstuwz"]
        for row, batched in zip(rows, row_logits(family, model, rows), strict=True):
            assert difference(batched, row_logits(family, model, [row])[0]) < EQUAL


def test_generates_from_a_left_padded_batch(family, model):
    rows = [f"x{letter}y" for letter in (family.media if family.together else family.media[0])]
    inputs = family.inputs([*rows, "qw", "xyz|pp|q"], padding_side="left")
    tokens = model.get_submodule(family.part).generate(**inputs, max_new_tokens=3, do_sample=False)
    assert tokens.shape == (len(rows) + 2, inputs["input_ids"].shape[1] + 3)
    assert not set(tokens[:, -3:].unique().tolist()) & set(NEVER_GENERATED)
