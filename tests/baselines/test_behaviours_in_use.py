"""Every method on rows of a batch, on a cache, and with the routing given by hand."""

import pytest
import torch
from torch.nn.functional import pad

from moka_peft import route, use_routing

from .adapting import METHODS, OURS, adapt, logits_of

GREEDY = {"max_new_tokens": 4, "do_sample": False}


@pytest.fixture(params=METHODS)
def method(request):
    return request.param


@pytest.fixture
def model(tiny_lm, spec, method):
    return adapt(tiny_lm(), method, spec)


@pytest.fixture
def rows(chat):
    """Chats of several lengths, with and without media, of one turn and of more."""
    return [chat("vvxyz", "pp", "axq"), chat("xyz"), chat("aavx", "m")]


def batched(rows, side):
    """Rows padded on one side -> ids, mask and positions that do not count padding."""
    length = max(row.shape[1] for row in rows)
    missing = [length - row.shape[1] for row in rows]
    ids = torch.cat([pad(row, (n, 0) if side == "left" else (0, n)) for row, n in zip(rows, missing, strict=True)])
    mask = torch.cat(
        [pad(torch.ones_like(row), (n, 0) if side == "left" else (0, n)) for row, n in zip(rows, missing, strict=True)]
    )
    return ids, mask, (mask.cumsum(1) - 1).clamp(min=0)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("training", [False, True])
def test_rows_do_not_touch_each_other(model, rows, side, training):
    model.train(training)
    ids, mask, positions = batched(rows, side)
    together = logits_of(model, ids, attention_mask=mask, position_ids=positions)
    for row, logits, here in zip(rows, together, mask.bool(), strict=True):
        torch.testing.assert_close(logits[here], logits_of(model, row)[0], rtol=1e-4, atol=1e-4)


def test_a_cache_changes_no_answer(model, rows):
    for row in rows:
        assert torch.equal(model.generate(row, **GREEDY), model.generate(row, use_cache=False, **GREEDY))


def test_a_batch_is_answered_as_its_rows_are(model, rows):
    ids, mask, _ = batched(rows, "left")
    together = model.generate(ids, attention_mask=mask, **GREEDY)
    for row, answered in zip(rows, together, strict=True):
        alone = model.generate(row, **GREEDY)[0, row.shape[1] :]
        assert torch.equal(answered[ids.shape[1] :][: len(alone)], alone)


@pytest.mark.parametrize("options", [{"prefill_chunk_size": 4}, {"num_beams": 2}, {"prompt_lookup_num_tokens": 2}])
def test_other_ways_to_generate(model, rows, options):
    beams = {key: value for key, value in options.items() if key == "num_beams"}
    expected = model.generate(rows[0], use_cache=False, **beams, **GREEDY)
    assert torch.equal(model.generate(rows[0], **options, **GREEDY), expected)


def test_a_second_turn_continues_the_cache(model, chat):
    first = chat("vvxyz")
    out = model.generate(first, return_dict_in_generate=True, **GREEDY)
    both = torch.cat([out.sequences, chat("axq")[:, 1:]], 1)
    mask = torch.ones_like(both)
    continued = model.generate(both, past_key_values=out.past_key_values, attention_mask=mask, **GREEDY)
    assert torch.equal(continued, model.generate(both, use_cache=False, **GREEDY))


@pytest.mark.parametrize("ours", OURS)
def test_a_routing_given_by_hand_is_the_one_that_is_read(tiny_lm, spec, ours, rows):
    model, bare = adapt(tiny_lm(), ours, spec), adapt(tiny_lm(), ours, None)
    with pytest.raises(ValueError, match="routing"):
        logits_of(bare, rows[0])
    expected = logits_of(model, rows[0])
    routing = route(rows[0], spec)
    assert torch.equal(logits_of(bare, rows[0], routing=routing), expected)
    with use_routing(bare, routing):
        assert torch.equal(logits_of(bare, rows[0]), expected)
        generated = bare.generate(rows[0], **GREEDY)
    assert torch.equal(generated, model.generate(rows[0], **GREEDY))


@pytest.mark.parametrize("ours", OURS)
def test_a_layer_alone_refuses_to_run(tiny_lm, spec, ours):
    layer = adapt(tiny_lm(), ours, spec).base_model.model.model.layers[0].self_attn.q_proj
    with pytest.raises(RuntimeError, match=r"q_proj' ran outside a forward of the model"):
        layer(torch.randn(1, 3, 32))


@pytest.mark.parametrize("ours", OURS)
def test_its_repr_says_what_it_is(tiny_lm, spec, ours):
    layer = adapt(tiny_lm(), ours, spec).base_model.model.model.layers[0].self_attn.q_proj
    assert "r=3, modalities=text/visual/audio" in repr(layer)
