"""The plan of a forward: every token in it once, and exactly the pairs that may attend to each other."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from moka_peft.routing import Routing
from moka_peft.routing.blocks import blocks_of
from moka_peft.routing.facts import attending, stretches_that_differ
from moka_peft.routing.plan import plan_of


def random_routing(batch, length, modalities, turns, seed):
    generator = torch.Generator().manual_seed(seed)
    modality = torch.randint(-1, modalities, (batch, length), generator=generator)
    turn = torch.randint(0, turns + 1, (batch, length), generator=generator).masked_fill(modality < 0, 0)
    return Routing(modality, turn)


def pairs(routing, text_query=False):
    """{(query row, key row)} by definition; text queries once per modality, with it."""
    modality, turn = routing.modality.flatten().tolist(), routing.turn.flatten().tolist()
    length, found = routing.shape[1], set()
    for a in range(len(modality)):
        for b in range(len(modality)):
            if a // length == b // length and turn[a] == turn[b] > 0 and modality[a] > 0 and modality[b] == 0:
                found.add((b, a) if text_query else (a, b))
    return found


def pairs_in(blocks):
    found = []
    for block in blocks:
        real = block.weight != 0
        keys = torch.ones_like(block.key, dtype=torch.bool) if block.bias is None else block.bias == 0
        assert keys.any(1).all()  # a softmax over nothing is not a number
        for chunk in range(len(block.query)):
            queries = block.query[chunk][real[chunk]].tolist()
            found += [(q, k) for q in queries for k in block.key[chunk][keys[chunk]].tolist()]
    return found


@settings(max_examples=80, deadline=None)
@given(st.integers(1, 3), st.integers(1, 20), st.integers(2, 4), st.integers(0, 3), st.booleans(), st.integers(0, 999))
def test_blocks_hold_the_allowed_pairs_once(batch, length, modalities, turns, text_query, seed):
    routing = random_routing(batch, length, modalities, turns, seed)
    blocks = blocks_of(routing, (0.5,) * (modalities - 1), torch.float32, text_query=text_query)
    found = pairs_in(blocks)
    assert len(found) == len(set(found)) and set(found) == pairs(routing, text_query)
    for block in blocks:
        slots = torch.arange(block.query.numel()) if block.slots is None else block.slots
        assert torch.equal(block.query.flatten()[slots], block.rows) and len(block.rows.unique()) == len(block.rows)
        assert torch.equal(block.weight.flatten()[slots], block.lam.squeeze(1))


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 3), st.integers(1, 20), st.integers(2, 5), st.integers(0, 999))
def test_plan_holds_every_token_once(batch, length, modalities, seed):
    routing = random_routing(batch, length, modalities, 2, seed)
    plan, flat = plan_of(routing, modalities), routing.modality.flatten()
    for m in range(modalities):
        assert plan.order[plan.bounds[m] : plan.bounds[m + 1]].tolist() == (flat == m).nonzero().squeeze(1).tolist()
    runs = [value for length, value in zip(plan.lengths, plan.values, strict=True) for _ in range(length)]
    assert runs == flat.tolist() and all(a != b for a, b in zip(plan.values, plan.values[1:], strict=False))
    assert plan.has_padding == bool((flat < 0).any())


@pytest.mark.parametrize(("media", "chunks"), [(1, 1), (255, 1), (256, 1), (257, 2), (600, 3)])
def test_chunks_of_a_turn_are_balanced(media, chunks):
    modality = torch.tensor([[0, 0, *([1] * media), *([0] * (media + 3))]])
    turn = torch.ones_like(modality)
    turn[:, 2 + media :] = 0
    (block,) = blocks_of(Routing(modality, turn), (1.0,), torch.float32)
    assert block.query.shape == (chunks, math.ceil(media / chunks)) and block.bias is None
    assert (block.weight == 0).sum() == block.query.numel() - media < chunks


def test_samples_that_are_mostly_one_turns_media_are_taken_whole():
    modality = torch.tensor([[0, 0, 1, 2, *[1] * 8], [1, 0, *[1] * 8, 0, -1], [1, 1, *[0] * 10]])
    turn = torch.tensor([[1] * 12, [*[1] * 10, 0, 0], [1, 1, *[0] * 10]])
    (block,) = blocks_of(Routing(modality, turn), (0.5, 2.0), torch.float32)
    assert block.is_whole and torch.equal(block.query, torch.arange(36).view(3, 12))
    assert block.weight.tolist() == [[0, 0, 0.5, 2, *[0.5] * 8], [0.5, 0, *[0.5] * 8, 0, 0], [0] * 12]
    turn[0, 11] = 2  # without a key: nobody's query
    assert blocks_of(Routing(modality, turn.clone()), (0.5, 2.0), torch.float32)[0].is_whole
    turn[0, 1] = 2  # its key: now two turns of the sample have queries
    assert not any(block.is_whole for block in blocks_of(Routing(modality, turn), (0.5, 2.0), torch.float32))


def test_turns_with_few_and_many_keys_are_not_filled_up_to_the_longest():
    """One turn of 100 keys beside eight of 2: the short ones are not computed as if they had 100."""
    keys = torch.tensor([100] + [2] * 8)
    modality = torch.cat([torch.tensor([1] + [0] * count) for count in keys]).unsqueeze(0)
    turn = torch.arange(1, 10).repeat_interleave(keys + 1).unsqueeze(0)
    blocks = blocks_of(Routing(modality, turn), (1.0,), torch.float32)
    assert sum(block.key.numel() for block in blocks) == keys.sum()


def test_layers_share_one_plan_and_one_set_of_blocks():
    routing = random_routing(2, 9, 3, 2, 0)
    assert plan_of(routing, 3) is plan_of(routing, 3)
    assert blocks_of(routing, (1.0, 1.0), torch.float32) is blocks_of(routing, (1.0, 1.0), torch.float32)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 3), st.integers(1, 40), st.booleans(), st.sampled_from([1, 9]), st.integers(0, 999))
def test_stretches_that_differ_hold_media_and_asking_instruction(batch, length, text_query, least, seed):
    routing = random_routing(batch, length, 3, 2, seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("moka_peft.routing.facts.LEAST_STRETCH", least)
        stretches = stretches_that_differ(routing, text_query=text_query)
    rows = {row for start, stop in stretches for row in range(start, stop)}
    allowed = pairs(routing, text_query)
    media = {int(row) for row in (routing.modality.flatten() > 0).nonzero()}
    expected = media | ({q for q, _ in allowed} if text_query else set())
    assert rows >= expected and batch * length >= least * len(stretches) or len(stretches) <= 1
    assert rows == expected or len(stretches) == 1


def test_attending_tells_both_sides():
    routing = random_routing(2, 15, 3, 2, 4)
    with_key, is_key = (mask.flatten().nonzero().squeeze(1).tolist() for mask in attending(routing))
    assert set(with_key) == {q for q, _ in pairs(routing)} and set(is_key) == {k for _, k in pairs(routing)}


def test_turns_may_have_any_number():
    routing = random_routing(2, 15, 3, 2, 5)
    renumbered = Routing(routing.modality, routing.turn * 10**15)
    assert pairs(renumbered) == pairs(routing) == set(pairs_in(blocks_of(renumbered, (1.0, 1.0), torch.float32)))
