"""Partial-modality inference against plain models, disabled adapters and loops over tokens."""

import copy
import json
from functools import partial

import pytest
import torch

from moka_peft import route, use_routing
from moka_peft.analysis.adapted_layers import adapted_layers, base_of
from moka_peft.analysis.partial_modality import adapting_only, choices, draw_partial, measure_partial
from moka_peft.ops import moka_delta
from moka_peft.tuner.channel import ATTRIBUTE

from .adapters import METHODS, adapt, padded
from .answering import answering

EVERY = ["text", "visual", "audio"]


@pytest.fixture
def batch(chat):
    """Two left-padded prompts, with images and with sound."""
    return padded([chat("vvqw"), chat("aqe"), chat("hvaq", "r", "wvs")], "left")


def logits(model, batch):
    """The logits of all real tokens, in one row."""
    with torch.no_grad():
        return model(**batch).logits[batch["attention_mask"] > 0]


@pytest.mark.parametrize("method", METHODS)
def test_all_and_none(tiny_lm, spec, batch, method):
    model = adapt(tiny_lm(), method, spec)
    plain = logits(model, batch)
    with adapting_only(model, spec, EVERY):
        assert torch.equal(logits(model, batch), plain)
    with model.disable_adapter():
        base = logits(model, batch)
    with adapting_only(model, spec, []):
        assert torch.equal(logits(model, batch), base)
    with adapting_only(model, spec, ["text"]):
        text = logits(model, batch)
    assert not torch.equal(base, plain) and not torch.equal(text, plain) and not torch.equal(text, base)
    assert torch.equal(logits(model, batch), plain)


def looped(model, spec, chosen):
    """A copy of the base whose Linears add LoRA's or MokA's update token by token, as the adapter's weights have it."""
    base = copy.deepcopy(base_of(model))
    routing = route(ROW, spec).renamed(("text", "visual", "audio"))

    def forward(layer, x):
        rows = []
        for t, token in enumerate(x[0]):
            y = layer.base_layer.weight @ token
            if int(routing.modality[0, t]) in chosen:
                y = y + update(layer, x, t, routing)
            rows.append(y)
        return torch.stack(rows).unsqueeze(0)

    for layer in adapted_layers(base).values():
        layer.forward = partial(forward, layer)
    base.__dict__.pop(ATTRIBUTE, None)
    base._forward_pre_hooks.clear()
    return base


def update(layer, x, t, routing):
    if hasattr(layer, "lora_A"):
        return 2 * layer.lora_B["default"].weight @ layer.lora_A["default"].weight @ x[0, t]
    A, B = layer.stacked_A("default"), layer.moka_B["default"].weight
    return moka_delta(x, A, B, routing, scaling=2, cross_scale=1, impl="reference")[0, t]


ROW = torch.tensor([[1, 2, 3, 50, 50, 20, 60, 21, 4, 22, 23]])  # two images, a word, a sound, a word, an answer


@pytest.mark.parametrize("method", ["lora", "moka"])
@pytest.mark.parametrize("chosen", [["text"], ["visual"], ["text", "audio"]])
def test_hand_built_loop(tiny_lm, spec, method, chosen):
    model = adapt(tiny_lm(), method, spec)
    with torch.no_grad():
        expected = looped(model, spec, [EVERY.index(name) for name in chosen])(ROW).logits
        with adapting_only(model, spec, chosen):
            got = model(ROW).logits
    torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-10)


GENERATE = {"max_new_tokens": 4, "do_sample": False, "output_logits": True, "return_dict_in_generate": True}
ROUNDED = {"rtol": 2e-7, "atol": 1e-12}  # `generate` gives float32, whatever the model computes in


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("generated", [True, False])
def test_cached_decode_equals_recomputing(tiny_lm, spec, batch, method, generated):
    model = adapt(tiny_lm(), method, spec)
    with adapting_only(model, spec, ["visual"], generated=generated):
        cached = model.generate(**batch, **GENERATE, use_cache=True)
        again = model.generate(**batch, **GENERATE, use_cache=False)
    assert torch.equal(cached.sequences, again.sequences)
    torch.testing.assert_close(cached.logits, again.logits, **ROUNDED)


def test_generated_tokens_pass_or_not(tiny_lm, spec, chat):
    model, ids = adapt(tiny_lm(), "lora", spec), chat("vvq")
    with adapting_only(model, spec, []):
        passing = model.generate(ids, **GENERATE)
    with adapting_only(model, spec, [], generated=False):
        staying = model.generate(ids, **GENERATE)
    with model.disable_adapter():
        base = model.generate(ids, **GENERATE)
    torch.testing.assert_close(staying.logits, base.logits, rtol=0, atol=0)
    assert torch.equal(passing.logits[0], base.logits[0])
    assert not torch.allclose(passing.logits[1], base.logits[1])


def test_steps_of_a_loop_of_ones_own(tiny_lm, spec, chat):
    model, ids = adapt(tiny_lm(), "lora", spec), chat("vvq")
    with adapting_only(model, spec, ["visual"]), torch.no_grad():
        expected = model.generate(ids, **GENERATE)
        first = model(ids, use_cache=True)
        step = expected.sequences[:, ids.shape[1] : ids.shape[1] + 1]
        second = model(step, past_key_values=first.past_key_values, use_cache=True)
    torch.testing.assert_close(second.logits[:, -1].float(), expected.logits[1], **ROUNDED)


@pytest.mark.parametrize("method", ["lora", "moka"])
def test_beams_chunks_and_rows(tiny_lm, spec, batch, method):
    model = adapt(tiny_lm(), method, spec)
    with adapting_only(model, spec, ["audio", "visual"]):
        plain = model.generate(**batch, **GENERATE)
        chunks = model.generate(**batch, **GENERATE, prefill_chunk_size=4)
        beams = [model.generate(**batch, **GENERATE, num_beams=3, use_cache=cached) for cached in (True, False)]
        rows = [batch["input_ids"][i : i + 1, batch["attention_mask"][i] > 0] for i in range(3)]
        alone = [model.generate(row, **GENERATE) for row in rows]
    torch.testing.assert_close(chunks.logits, plain.logits, **ROUNDED)
    torch.testing.assert_close(beams[0].logits, beams[1].logits, **ROUNDED)
    for index, row in enumerate(alone):
        got = torch.stack(row.logits)[:, 0]
        torch.testing.assert_close(got, torch.stack(plain.logits)[: len(got), index], **ROUNDED)


@pytest.mark.parametrize("method", ["lora", "moka"])
def test_routing_given_by_hand(tiny_lm, spec, method):
    model = adapt(tiny_lm(), method, spec)
    with adapting_only(model, spec, ["visual"]), torch.no_grad():
        expected = model(ROW).logits
        embeds = model.get_input_embeddings()(ROW)
        with use_routing(model, route(ROW, spec)):
            got = model(inputs_embeds=embeds).logits
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)


def count_hooks(model):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


@pytest.mark.parametrize("method", ["lora", "moka"])
def test_nothing_stays_after_an_error(tiny_lm, spec, method):
    model = adapt(tiny_lm(), method, spec)
    before, plain = count_hooks(model), logits(model, padded([ROW]))
    with pytest.raises(KeyError), adapting_only(model, spec, ["visual"]):
        raise KeyError
    with pytest.raises(ValueError, match=r"`modalities`: expected some of .*audio.*, got \['sound'\]"):
        adapting_only(model, spec, ["sound"]).__enter__()
    with pytest.raises(ValueError, match="got 'text'"):
        adapting_only(model, spec, "text").__enter__()
    assert count_hooks(model) == before
    assert torch.equal(logits(model, padded([ROW])), plain)


@pytest.mark.parametrize("method", ["lora", "moka"])
def test_a_merged_adapter_is_refused(tiny_lm, spec, method):
    model = adapt(tiny_lm(), method, spec)
    with adapting_only(model, spec, ["visual"]):
        model.merge_adapter()
        with pytest.raises(ValueError, match="merged into"):
            model(ROW)
    with pytest.raises(ValueError, match="merged into"):
        adapting_only(model, spec, ["visual"]).__enter__()


def test_disabled_inside(tiny_lm, spec):
    model = adapt(tiny_lm(), "lora", spec)
    with adapting_only(model, spec, ["visual"]), model.disable_adapter():
        inside = logits(model, padded([ROW]))
    with model.disable_adapter():
        assert torch.equal(inside, logits(model, padded([ROW])))


def test_a_layer_alone_has_no_routing(tiny_lm, spec):
    model = adapt(tiny_lm(), "lora", spec)
    layer = next(iter(adapted_layers(model).values()))
    with adapting_only(model, spec, ["visual"]):
        model(ROW)
        with pytest.raises(RuntimeError, match="outside a forward"):
            layer(torch.zeros(1, ROW.shape[1], 32, dtype=torch.float64))


def test_choices_of_two_modalities_are_named_once():
    assert choices(("text", "visual")) == {
        "all": ["text", "visual"],
        "only text": ["text"],
        "only visual": ["visual"],
        "none": [],
    }
    assert list(choices(EVERY))[4:] == ["without text", "without visual", "without audio", "none"]


@pytest.mark.parametrize("method", ["lora", "moka"])
def test_measured(method, tmp_path):
    model, processor, samples = answering(method, size=4)
    result = measure_partial(model, processor, samples, batch_size=3, max_new_tokens=1)
    assert json.loads(json.dumps(result))["samples"] == 4
    rows = {row["name"]: row for row in result["rows"]}
    assert list(rows) == list(choices(EVERY))
    assert rows["all"]["agreement"] == 1 and rows["all"]["scores"]["all"]["total"] == 4
    assert len({row["agreement"] for row in rows.values()}) > 1
    draw_partial(result, tmp_path / "partial.png")
    assert (tmp_path / "partial.png").stat().st_size > 10_000
