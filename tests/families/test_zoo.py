"""Every family's tiny model reads its media and its text, and a row alone equals that row in a batch."""

import pytest
import torch

from moka_peft.routing import route

from .layout import AUDIO, IMAGE, VIDEO, concatenate, text_id
from .weights import NEVER_GENERATED, dead_parameters
from .zoo import FAMILIES, REFUSED

MATTERS, EQUAL = 1e-3, 1e-4  # media and text move logits by 0.19 and more, the shape of a batch by 5e-6 at most


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


def equal(item, other):
    return all(torch.equal(tensor, other[name]) for name, tensor in item.items())


def difference(a, b):
    return (a - b).abs().max().item()


def test_inputs_are_what_the_layout_says(family):
    for letter in family.media:
        inputs = family.inputs([f"x{letter}y|pp|q", "qw"], padding_side="left")
        routing = route(inputs["input_ids"], family.spec, inputs["attention_mask"])
        instruction = (routing.modality == 0) & (routing.turn > 0)
        assert inputs["input_ids"][instruction].tolist() == [text_id(text) for text in "xyqqw"]
        media = routing.modality > 0
        assert media.sum() == sum(token in (IMAGE, VIDEO, AUDIO) for token in family.items[letter].tokens)
        assert not media[1].any() and set(routing.turn[media].tolist()) == {1}


def test_media_depend_on_seed_and_index_alone(family):
    assert set(family.inputs(["qw"])) == {"input_ids", "attention_mask", family.type_ids} - {None}
    for letter in family.media:
        first, second = family.row_media(f"x{letter}|p|{letter}")
        assert equal(family.row_media(letter)[0], first)
        assert not equal(first, second) and not equal(family.row_media(letter, media_seed=1)[0], first)
        batch = family.inputs(["qw", letter, letter])
        one = family.inputs([letter])
        assert all(batch[name].numel() == 2 * one[name].numel() for name in first if family.collate is concatenate)


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


def test_models_without_media_tokens_build():
    for build in REFUSED.values():
        assert dead_parameters(build()) == []
