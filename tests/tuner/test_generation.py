"""Every way in which `generate` splits its work gives what one forward after another on the whole would give."""

from dataclasses import replace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import GenerationConfig, MistralConfig, MistralForCausalLM

from moka_peft import use_routing
from moka_peft.ops.adapted import adapted_linear
from moka_peft.routing import route
from moka_peft.tuner import channel_of
from moka_peft.tuner.generation import Prompt, chunk_size_for

GREEDY = {"max_new_tokens": 6, "do_sample": False}


@pytest.fixture
def model(adapted):
    return adapted()


def recomputed(model, prompt, **inputs):
    """Greedy tokens without a cache: every step is one forward of everything."""
    return model.generate(prompt, use_cache=False, **inputs, **GREEDY)


@pytest.mark.parametrize("size", [1, 3, 4, 7, 50])
def test_chunked_prefill_keeps_turns_whole(model, chat, size):
    prompt = chat("vvxyz", "pp", "qw", "mm", "xav")
    seen = lengths(model)
    assert torch.equal(model.generate(prompt, prefill_chunk_size=size, **GREEDY), recomputed(model, prompt))
    first_turn = 1 + 2 + 5  # BOS, the opening, media and instruction
    assert seen[0] >= min(max(size, first_turn), prompt.shape[1])


def test_chunk_size_in_a_positional_generation_config(model, chat):
    prompt = chat("vvxyz", "pp", "qw")
    config = GenerationConfig(prefill_chunk_size=3, **GREEDY)
    assert torch.equal(model.generate(prompt, config), recomputed(model, prompt))


def lengths(model):
    seen = []
    model.get_base_model().register_forward_pre_hook(
        lambda _, __, kwargs: seen.append(kwargs["input_ids"].shape[1]), with_kwargs=True
    )
    return seen


def test_chunks_are_only_as_large_as_needed(spec, chat):
    text, media = chat("xyzxyz", "pp", "xyz"), chat("x" * 6, "p", "vvxyz", "p", "w")
    assert chunk_size_for(Prompt(text, None), [spec], 2, 0) == 2
    turn = route(media, spec).turn[0].tolist()
    start, stop = turn.index(2), len(turn) - turn[::-1].index(2)
    size = chunk_size_for(Prompt(media, None), [spec], 3, 0)
    assert not any(start < cut < stop for cut in range(size, media.shape[1], size))
    assert all(any(start < cut < stop for cut in range(s, media.shape[1], s)) for s in range(3, size))


def test_chunks_of_a_batch_suit_every_row(model, chat):
    rows = [chat("vvxyz", "pp", "q"), chat("xyz", "p", "aav")]
    length = max(row.shape[1] for row in rows)
    ids = torch.cat([torch.nn.functional.pad(row, (length - row.shape[1], 0)) for row in rows])
    mask = (ids != 0).long()
    chunked = model.generate(ids, attention_mask=mask, prefill_chunk_size=5, **GREEDY)
    assert torch.equal(chunked, recomputed(model, ids, attention_mask=mask))


def test_a_chunk_that_splits_a_turn_is_refused_by_hand(model, chat):
    prompt = chat("vvxyz")
    with pytest.raises(ValueError, match="their user turn is not complete in this forward"):
        model(prompt[:, :6], use_cache=True)


@pytest.mark.parametrize("options", [{"prompt_lookup_num_tokens": 3}, {"assistant": True}])
def test_drafted_tokens_change_nothing(model, tiny_lm, chat, options):
    prompt = chat("vvxyzxyz", "pp", "axyzx")
    if options.pop("assistant", False):
        options = {"assistant_model": tiny_lm(seed=5)}
    assert torch.equal(model.generate(prompt, **options, **GREEDY), recomputed(model, prompt))


def test_the_adapted_model_drafts_for_another(model, tiny_lm, chat):
    prompt, base = chat("vvxyz"), tiny_lm(seed=5)
    assert torch.equal(
        base.generate(prompt, assistant_model=model.get_base_model(), **GREEDY), base.generate(prompt, **GREEDY)
    )


@pytest.mark.parametrize("second", ["xyz", "axq", "xvvy"])
def test_second_turn_continues_the_cache(model, chat, second):
    """The whole conversation is given again with the cache of the first answer, as chat loops do."""
    first = chat("vvxyz")
    out = model.generate(first, return_dict_in_generate=True, **GREEDY)
    turn = chat(second)[:, 1:]
    both = torch.cat([out.sequences, turn], 1)
    continued = model.generate(
        both, past_key_values=out.past_key_values, attention_mask=torch.ones_like(both), **GREEDY
    )
    assert torch.equal(continued, recomputed(model, both))


def test_only_the_new_tokens_are_given_with_a_cache(model, chat):
    first = chat("vvxyz")
    cache = model.generate(first, return_dict_in_generate=True, **GREEDY)
    turn = torch.cat([cache.sequences[:, -1:], chat("axq")[:, 1:]], 1)  # the last token is not cached yet
    mask = torch.ones(1, cache.sequences.shape[1] - 1 + turn.shape[1], dtype=torch.long)
    new = model.generate(turn, past_key_values=cache.past_key_values, attention_mask=mask, **GREEDY)
    whole = torch.cat([cache.sequences, turn[:, 1:]], 1)
    assert torch.equal(new[:, turn.shape[1] :], recomputed(model, whole)[:, whole.shape[1] :])


def test_a_cached_prefix_that_ends_inside_a_turn(model, chat):
    """What comes before the media may be cached; media and their instruction may not be apart."""
    prompt = chat("xyz", "pp", "vvxq")
    opened, inside = 1 + 2 + 3 + 1 + 2 + 1 + 2, prompt.shape[1] - 3
    mask = torch.ones_like(prompt)
    cache = model(prompt[:, :opened], use_cache=True).past_key_values
    out = model.generate(prompt, past_key_values=cache, attention_mask=mask, **GREEDY)
    assert torch.equal(out, recomputed(model, prompt))
    with pytest.raises(ValueError, match="their user turn is not complete in this forward"):
        model(prompt[:, :inside], use_cache=True)
    with use_routing(model, None, allow_open_turn=True):
        cache = model(prompt[:, :inside], use_cache=True).past_key_values
    shared = model.generate(prompt, past_key_values=cache, attention_mask=mask, **GREEDY)
    assert shared.shape == out.shape  # the question's own tokens need nothing from the cache's routing


def test_media_whose_instruction_is_cached_are_refused(model, chat):
    prompt = chat("xyvv")
    cache = model(prompt[:, :5], use_cache=True).past_key_values
    with pytest.raises(ValueError, match="position 5 of the prompt lies inside a user turn with media"):
        model.generate(prompt, past_key_values=cache, attention_mask=torch.ones_like(prompt), **GREEDY)
    cache = model(prompt[:, :5], use_cache=True).past_key_values
    model.generate(
        prompt, past_key_values=cache, attention_mask=torch.ones_like(prompt), allow_open_turn=True, **GREEDY
    )


@pytest.mark.parametrize(
    "options",
    [
        {"do_sample": True, "num_return_sequences": 2},
        {"num_beams": 3, "num_return_sequences": 3, "do_sample": False},
        {"num_beams": 2, "do_sample": True},
    ],
)
def test_sampling_and_beams_cached_equal_recomputed(model, chat, options):
    prompt, found = torch.cat([chat("vvxyz"), chat("axyvw")]), []
    for use_cache in (True, False):
        torch.manual_seed(3)
        found.append(model.generate(prompt, use_cache=use_cache, max_new_tokens=5, **options))
    assert torch.equal(*found)


def test_embeddings_with_explicit_routing(model, spec, chat):
    prompt = chat("vvxyz", "pp", "axq")
    embeds = model.get_input_embeddings()(prompt)
    routing = route(prompt, spec)
    out = model.generate(inputs_embeds=embeds, routing=routing, attention_mask=torch.ones_like(prompt), **GREEDY)
    assert torch.equal(out, recomputed(model, prompt)[:, prompt.shape[1] :])


def test_a_prompt_is_routed_once(model, chat, monkeypatch):
    from moka_peft.routing.scan import route_if_media
    from moka_peft.tuner import generation, reading

    calls = []
    monkeypatch.setattr(generation, "route_if_media", lambda *a, **k: calls.append(1) or route_if_media(*a, **k))
    monkeypatch.setattr(reading, "route_if_media", lambda *a, **k: pytest.fail("a step was routed by its own ids"))
    monkeypatch.setattr(reading, "names_media", lambda *a, **k: pytest.fail("a step's ids were looked at"))
    model.generate(chat("vvxyz"), **GREEDY)
    assert calls == [1]


def test_static_cache_with_a_sliding_window_shorter_than_the_prompt(adapted, chat):
    values = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2, vocab_size=100, pad_token_id=0)
    torch.manual_seed(0)
    config = MistralConfig(**values, num_attention_heads=4, num_key_value_heads=4, sliding_window=5)
    model = adapted(base=MistralForCausalLM(config))
    row = chat("vvxyz", "pp", "qw")
    prompt = torch.cat(
        [torch.nn.functional.pad(row, (3, 0)), torch.nn.functional.pad(chat("qvw"), (row.shape[1] - 4, 0))]
    )
    options = {"attention_mask": (prompt != 0).long(), "min_new_tokens": 6, **GREEDY}
    expected = model.generate(prompt, **options)
    assert torch.equal(model.generate(prompt, cache_implementation="static", **options), expected)


def test_decode_steps_apply_the_text_matrix_alone_and_ask_nothing_of_the_device(model, tiny_lm, chat, monkeypatch):
    prompt = chat("vvxyz", "pp", "qw")
    expected = generated_by_reference(model, prompt)
    calls = []
    monkeypatch.setattr("moka_peft.tuner.computation.adapted_linear", lambda *a: calls.append(a) or adapted_linear(*a))
    assert torch.equal(model.generate(prompt, **GREEDY), expected)
    assert len(calls) == len(channel_of(model).layers)  # those of the prompt
    assert reads_per_step(model, prompt) == reads_per_step(tiny_lm(), prompt)


def generated_by_reference(model, prompt):
    impl_of(model, "reference")
    tokens = model.generate(prompt, **GREEDY)
    impl_of(model, "auto")
    return tokens


def impl_of(model, name):
    for layer in channel_of(model).layers:
        layer.options["default"] = replace(layer.options["default"], impl=name)


def reads_per_step(model, prompt):
    """Values that one more decode step fetches from the device."""

    class Reads(TorchDispatchMode):
        count = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            self.count += func is torch.ops.aten._local_scalar_dense.default
            return func(*args, **(kwargs or {}))

    counts = []
    for steps in (3, 4):
        with Reads() as reads:
            model.generate(prompt, max_new_tokens=steps, min_new_tokens=steps, do_sample=False)
        counts.append(reads.count)
    return counts[1] - counts[0]


def test_rows_of_text_alone_equal_the_reference(model, chat):
    ids = torch.cat([chat("xyz", "p"), torch.nn.functional.pad(chat("xy"), (3, 0))])
    inputs = {"input_ids": ids, "attention_mask": (ids != 0).long()}
    with torch.no_grad():
        got = model(**inputs).logits
        impl_of(model, "reference")
        torch.testing.assert_close(got, model(**inputs).logits)


def test_a_generate_of_the_instance_is_kept(adapted, tiny_lm, chat):
    base, calls = tiny_lm(), []

    def own(*args, **kwargs):
        calls.append(args)
        return type(base).generate(base, *args, **kwargs)

    base.generate = own
    model = adapted(base=base)
    prompt = chat("vvxyz", "pp", "qw")
    assert torch.equal(model.generate(prompt, prefill_chunk_size=3, **GREEDY), recomputed(model, prompt))
    assert len(calls) == 2
    assert model.unload().generate is own
