"""How a routing reaches the layers: every way in, and every way a forward can be called."""

import pytest
import torch

from moka_peft import MokaConfig, Routing, route, use_routing
from moka_peft.tuner import channel_of


@pytest.fixture
def ids(chat):
    return torch.cat([chat("vvxyz", "pp"), chat("xavwq", "mm")])


def pad_left(rows, value=0):
    length = max(row.shape[1] for row in rows)
    padded = [torch.nn.functional.pad(row, (length - row.shape[1], 0), value=value) for row in rows]
    return torch.cat(padded)


def test_explicit_routing_equals_the_routing_read_from_ids(adapted, spec, ids):
    model = adapted()
    expected = model(ids).logits
    assert torch.equal(model(ids, routing=route(ids, spec)).logits, expected)
    assert not torch.allclose(
        model(ids, routing=Routing(torch.zeros_like(ids), torch.zeros_like(ids))).logits, expected
    )


def test_collators_routing_is_consumed(adapted, spec, ids):
    model = adapted(routing=None)
    routing = route(ids, spec)
    expected = adapted()(ids).logits
    assert torch.equal(model(ids, moka_modality=routing.modality, moka_turn=routing.turn).logits, expected)


def test_use_routing_takes_any_module_that_holds_adapted_linears(adapted, spec, ids):
    model = adapted(routing=None)
    expected = adapted()(ids).logits
    for handle in (model, model.base_model, model.get_base_model(), model.get_base_model().model):
        with use_routing(handle, route(ids, spec)):
            assert torch.equal(model(ids).logits, expected)
    with (
        pytest.raises(ValueError, match="`model`: Linear holds no MokA adapter"),
        use_routing(torch.nn.Linear(2, 2), None),
    ):
        pass


def test_without_spec_or_routing_the_first_forward_raises(adapted, ids):
    with pytest.raises(ValueError, match="MokA has no routing spec.*names no folder or hub id"):
        adapted(routing=None)(ids)


def test_missing_placeholder_of_a_modality_raises(adapted, ids):
    model = adapted(modalities=("text", "visual", "thermal"))
    with pytest.raises(ValueError, match="no placeholder token found for modality 'thermal'"):
        model(ids)


def test_input_without_ids_needs_explicit_routing(adapted, spec, ids):
    model = adapted()
    embeds = model.get_input_embeddings()(ids)
    with pytest.raises(ValueError, match="no `input_ids` to route by"):
        model(inputs_embeds=embeds)
    torch.testing.assert_close(model(inputs_embeds=embeds, routing=route(ids, spec)).logits, model(ids).logits)


def test_routing_that_does_not_fit_raises(adapted, ids):
    zeros = torch.zeros(2, 3, dtype=torch.long)
    with pytest.raises(ValueError, match=r"`routing` describes \[2, 3\] tokens, but the input has \[2, \d+\]"):
        adapted()(ids, routing=Routing(zeros, zeros))
    with pytest.raises(ValueError, match="`routing`: expected a moka_peft.Routing, got list"):
        adapted()(ids, routing=[0])


def test_fixed_routing_that_does_not_fit_raises(adapted, spec, ids):
    model = adapted()
    with use_routing(model, route(ids, spec)):
        with pytest.raises(ValueError, match="the routing has 2 rows, the forward 3"):
            model(torch.cat([ids, ids[:1]]))
        with pytest.raises(ValueError, match=r"describes \d+ positions, the first forward has only 4"):
            model(ids[:, :4])


def test_tokens_of_a_modality_the_adapter_lacks_raise(adapted, spec, ids):
    with pytest.raises(ValueError, match="`routing` holds tokens of modality 'audio'"):
        adapted(modalities=("text", "visual"))(ids)


def test_inner_model_called_by_itself(adapted, ids):
    model = adapted()
    root = model.get_base_model()
    hidden = root.model(input_ids=ids).last_hidden_state
    torch.testing.assert_close(root.lm_head(hidden), model(ids).logits)


def test_routing_is_gone_after_the_forward(adapted, ids):
    model = adapted()
    model(ids)
    assert channel_of(model).current is None
    with pytest.raises(RuntimeError, match="ran outside a forward"):
        model.get_base_model().model.layers[0].mlp(torch.randn(2, ids.shape[1], 32))


def test_routing_is_gone_after_a_failed_forward(adapted, ids):
    model = adapted()
    with pytest.raises(Exception, match="."):
        model(ids, attention_mask=torch.ones(7, 7, 7, 7, 7))
    assert channel_of(model).current is None
    model(ids)


def test_second_adapter_does_not_hook_twice(adapted, spec):
    model = adapted()
    before = len(model.get_base_model()._forward_pre_hooks)
    model.add_adapter("other", MokaConfig(modalities=("text", "visual"), routing=spec))
    assert len(model.get_base_model()._forward_pre_hooks) == before == 1


def test_replica_of_data_parallel_is_refused(adapted, ids):
    model = adapted()
    model.get_base_model()._is_replica = True
    with pytest.raises(RuntimeError, match="does not run under torch.nn.DataParallel"):
        model(ids)


@pytest.mark.parametrize("interaction", ["cross_attention", "text_query", "mean"])
def test_prefill_and_decode_equal_one_forward(adapted, chat, interaction):
    model = adapted(interaction=interaction)
    prompt, answer = chat("vvxyz"), torch.tensor([[20, 21, 22]])
    whole = model(torch.cat([prompt, answer], 1)).logits
    step = model(prompt, use_cache=True)
    logits = [step.logits]
    for token in answer.T:
        step = model(token.view(1, 1), past_key_values=step.past_key_values, use_cache=True)
        logits.append(step.logits)
    torch.testing.assert_close(torch.cat(logits, 1), whole, rtol=1e-4, atol=1e-5)


def test_second_turn_on_a_cache_equals_recomputed(adapted, chat):
    model = adapted()
    first, both = chat("vvxyz", "pp"), chat("vvxyz", "pp", "axq")
    cache = model(first, use_cache=True).past_key_values
    continued = model(both[:, first.shape[1] :], past_key_values=cache, use_cache=True).logits
    torch.testing.assert_close(continued, model(both).logits[:, first.shape[1] :], rtol=1e-4, atol=1e-5)


def test_a_cache_is_found_under_any_keyword(adapted, chat):
    """Read as the start of a conversation, a continued one would be routed wrongly without a word."""
    from transformers import DynamicCache

    from moka_peft.tuner.forward import Forward

    cache, ids = DynamicCache(), chat("xyz")
    cache.update(torch.zeros(1, 4, 7, 8), torch.zeros(1, 4, 7, 8), 0)
    for keyword in ("past_key_values", "cache"):
        assert Forward.of(adapted(), (), {"input_ids": ids, keyword: cache}).cached_length == 7


@pytest.mark.parametrize("options", [{}, {"num_beams": 3}, {"use_cache": False}, {"cache_implementation": "static"}])
def test_generate_batched_with_padding_equals_alone(adapted, chat, options):
    model = adapted()
    prompts = [chat("vvxyz"), chat("aavvxyzpqm"), chat("xy")]
    ids = pad_left(prompts)
    mask = (ids != 0).long()
    options = {"max_new_tokens": 5, "do_sample": False, **options}
    together = model.generate(input_ids=ids, attention_mask=mask, **options)
    for row, prompt in enumerate(prompts):
        alone = model.generate(input_ids=prompt, attention_mask=torch.ones_like(prompt), **options)
        new = alone[0, prompt.shape[1] :]
        assert torch.equal(together[row, ids.shape[1] :][: len(new)], new)


@pytest.mark.parametrize(
    "options", [{}, {"num_beams": 2}, {"num_return_sequences": 2, "num_beams": 2}, {"use_cache": False}]
)
def test_generate_with_explicit_routing(adapted, spec, chat, options):
    prompt = torch.cat([chat("vvxyz"), chat("axyvw")])
    options = {"max_new_tokens": 4, "do_sample": False, **options}
    expected = adapted().generate(input_ids=prompt, **options)
    model, routing = adapted(routing=None), route(prompt, spec)
    assert torch.equal(model.generate(input_ids=prompt, routing=routing, **options), expected)
    keys = {"moka_modality": routing.modality, "moka_turn": routing.turn}
    assert torch.equal(model.generate(input_ids=prompt, **keys, **options), expected)
    with use_routing(model, routing):
        assert torch.equal(model.generate(input_ids=prompt, **options), expected)


def test_template_without_close_uses_the_prompts_length(adapted, chat):
    from moka_peft import RoutingSpec

    spec = RoutingSpec(placeholders={"visual": (50,), "audio": (60,)})
    prompt = torch.tensor([[50, 50, 20, 21, 22]])
    model = adapted(routing=spec)
    with pytest.raises(ValueError, match="their user turn is not complete"):
        model(prompt, use_cache=True)
    out = model.generate(input_ids=prompt, max_new_tokens=4, do_sample=False)
    read = route(prompt, spec)
    routing = Routing(read.modality, read.turn)
    assert torch.equal(
        out, adapted(routing=None).generate(input_ids=prompt, routing=routing, max_new_tokens=4, do_sample=False)
    )
    assert torch.equal(out, model.generate(input_ids=prompt, max_new_tokens=4, do_sample=False, use_cache=False))
    with pytest.raises(ValueError, match="training cannot tell instruction from answer"):
        model(prompt, labels=prompt)


def test_padding_side_and_batching_do_not_matter(adapted, chat):
    model = adapted()
    rows = [chat("vvxyz", "pp"), chat("xavwqqq", "mm", "vz", "p")]
    left = pad_left(rows)
    mask = (left != 0).long()
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    logits = model(left, attention_mask=mask, position_ids=positions).logits
    right = torch.nn.utils.rnn.pad_sequence([row[0] for row in rows], batch_first=True)
    other = model(right, attention_mask=(right != 0).long()).logits
    for index, row in enumerate(rows):
        alone = model(row).logits[0]
        torch.testing.assert_close(logits[index, -row.shape[1] :], alone, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(other[index, : row.shape[1]], alone, rtol=1e-4, atol=1e-5)


def test_changed_answer_changes_nothing_before_it(adapted, chat):
    model = adapted()
    before, after = chat("vvxyz", "pp", "axq", "zz"), chat("vvxyz", "wm", "axq", "zz")
    start = int((before != after)[0].int().argmax())
    assert torch.equal(model(before).logits[:, :start], model(after).logits[:, :start])


def test_media_change_with_their_own_turns_instruction_only(adapted, chat):
    """The key and value of an image depend on its own question and on no other turn's."""
    model = adapted()
    first = model.get_base_model().model.layers[0].self_attn
    base, own, other = chat("vvxy", "p", "vvqq", "p"), chat("vvxz", "p", "vvqq", "p"), chat("vvxy", "p", "vvqw", "p")
    keys = {}
    for name, ids in {"base": base, "own": own, "other": other}.items():
        handle = first.k_proj.register_forward_hook(lambda *a, name=name: keys.update({name: a[2]}))
        model(ids)
        handle.remove()
    media = (base == 50)[0].nonzero().flatten().tolist()
    assert not torch.allclose(keys["base"][0, media[:2]], keys["own"][0, media[:2]])
    assert torch.equal(keys["base"][0, media[2:]], keys["own"][0, media[2:]])
    assert torch.equal(keys["base"][0, media[:2]], keys["other"][0, media[:2]])


def test_mask_and_labels_may_be_positional(adapted):
    model = adapted()
    ids = torch.tensor([[1, 2, 3, 50, 20, 0, 0, 0]])  # padding inside a turn that is open
    mask = (ids != 0).long()
    expected = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
    assert torch.equal(model(ids, mask, use_cache=False).logits, expected)
    with pytest.raises(ValueError, match="1 instruction tokens carry loss"):
        model(ids, mask, None, None, None, ids)


def test_one_routing_serves_inference_mode_and_training(adapted, spec, ids):
    model, routing = adapted(), route(ids, spec)
    with torch.inference_mode():
        expected = model(ids, routing=routing).logits.clone()
    logits = model.train()(ids, routing=routing).logits
    logits[:, -1].sum().backward()
    torch.testing.assert_close(logits.detach(), expected.detach())
