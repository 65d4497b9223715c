"""What a decode step of a merged model runs beside the frozen base's operators, and what a step may take for text."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from moka_peft import route, use_routing
from moka_peft.tuner import channel_of


@pytest.fixture
def merged(adapted):
    model = adapted()
    model.merge_adapter()
    return model


@pytest.fixture
def prompts(chat):
    """Two rows, the shorter one padded on the left."""
    first, second = chat("vvxyz", "pp", "qw"), chat("vxy")
    ids = torch.cat([first, torch.nn.functional.pad(second, (first.shape[1] - second.shape[1], 0))])
    return {"input_ids": ids, "attention_mask": (ids != 0).long()}


def operators(call) -> Counter:
    with torch.no_grad(), profile(activities=[ProfilerActivity.CPU]) as found:
        call()
    return Counter({event.key: event.count for event in found.key_averages()})


def operators_of_steps(model, inputs, first, last, **options) -> Counter:
    """What `generate` runs more for `last` new tokens than for `first`."""

    def generate(steps):
        return lambda: model.generate(**inputs, max_new_tokens=steps, min_new_tokens=steps, do_sample=False, **options)

    generate(last)()  # what is set up once
    return operators(generate(last)) - operators(generate(first))


@pytest.mark.parametrize("options", [{}, {"num_beams": 3}, {"cache_implementation": "static"}], ids=str)
@pytest.mark.parametrize("steps", [(1, 2), (3, 4)], ids=["first step", "later step"])
def test_a_merged_step_of_generate_runs_the_bases_operators(merged, tiny_lm, prompts, options, steps):
    found = operators_of_steps(merged, prompts, *steps, **options)
    assert found == operators_of_steps(tiny_lm(), prompts, *steps, **options)


def operators_of_a_loops_step(model, inputs) -> Counter:
    mask, token = inputs["attention_mask"], torch.tensor([[9], [9]])
    with torch.no_grad():
        cache = model(**inputs, use_cache=True).past_key_values
        for _ in range(2):
            mask = torch.cat([mask, torch.ones(2, 1, dtype=torch.long)], 1)
            step = {"input_ids": token, "attention_mask": mask, "past_key_values": cache}
            found = operators(lambda step=step: model(**step))
    return found


def test_a_merged_step_of_a_loop_of_ones_own_only_looks_at_the_ids(merged, tiny_lm, prompts):
    base = operators_of_a_loops_step(tiny_lm(), prompts)
    read = Counter({"aten::resolve_conj": 1, "aten::resolve_neg": 1})  # all that the profiler shows of a tolist
    assert operators_of_a_loops_step(merged, prompts) == base + read


def test_a_merged_step_under_use_routing_runs_the_bases_operators(merged, spec, tiny_lm, prompts):
    with use_routing(merged, route(prompts["input_ids"], spec, prompts["attention_mask"])):
        found = operators_of_a_loops_step(merged, prompts)
    assert found == operators_of_a_loops_step(tiny_lm(), prompts)


@pytest.mark.parametrize("merge", [False, True], ids=["unmerged", "merged"])
def test_media_in_a_step_of_a_loop_take_their_own_matrix(adapted, chat, merge):
    model, ids = adapted(interaction="none"), chat("xyvaz")
    if merge:
        model.merge_adapter()
    whole, cache, logits = model(ids).logits, None, []
    for token in ids.T:
        step = model(token.view(1, 1), past_key_values=cache, use_cache=True)
        cache = step.past_key_values
        logits.append(step.logits)
    torch.testing.assert_close(torch.cat(logits, 1), whole, rtol=1e-4, atol=1e-5)


def test_a_forward_inside_generate_that_is_not_its_own_is_read(adapted, chat):
    """Here of a logits processor: one medium without a cache, which is no step."""
    model, prompt, seen = adapted(), chat("vvxyz"), []
    medium = prompt[:, 3:4]
    expected = model(input_ids=medium, use_cache=False).logits

    def again(ids, scores):
        seen.append(model(input_ids=medium, use_cache=False).logits)
        return scores

    model.generate(prompt, max_new_tokens=3, do_sample=False, logits_processor=[again])
    assert len(seen) == 3 and all(torch.equal(logits, expected) for logits in seen)
    assert not channel_of(model).past_prompt
