"""torch.compile of an adapted model: one graph, the routing read inside it, the same numbers."""

import pytest
import torch
import transformers
from packaging.version import Version


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.fixture
def one_layer(adapted, tiny_lm):
    """`adapted` on one layer, which has every kind of matrix: a compiler takes as long as there are layers."""
    return lambda **config: adapted(base=tiny_lm(num_hidden_layers=1), **config)


@pytest.fixture
def ids(chat):
    return torch.cat([chat("vvxyz", "pp"), chat("xavwq", "mm")])


def compiled(model):
    return torch.compile(model, fullgraph=True, backend="aot_eager")


@pytest.mark.parametrize("interaction", ["cross_attention", "text_query"])
def test_eval_forward(one_layer, ids, interaction):
    model = one_layer(interaction=interaction).double()
    with torch.no_grad():
        expected, got = model(ids).logits, compiled(model)(ids).logits
    torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-12)


def test_merged(one_layer, ids, chat):
    model = one_layer().double()
    model.merge_adapter()
    run = compiled(model)
    with torch.no_grad():
        for rows in (ids, chat("xyzqw", "pp")):
            torch.testing.assert_close(run(rows).logits, model(rows).logits, rtol=1e-10, atol=1e-12)


def test_training_forward_and_backward(one_layer, ids):
    model = one_layer().double().train()
    mask = torch.ones_like(ids)
    gradients = []
    for run in (model, compiled(model)):
        model.zero_grad()
        run(input_ids=ids, attention_mask=mask).logits.square().mean().backward()
        gradients.append({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys() and gradients[0]
    for name, expected in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], expected, rtol=1e-10, atol=1e-12)


def test_other_layouts_of_the_same_shape_do_not_recompile(one_layer, chat):
    from torch._dynamo.testing import CompileCounterWithBackend

    counter, model = CompileCounterWithBackend("eager"), one_layer().double()
    run = torch.compile(model, fullgraph=True, backend=counter)
    with torch.no_grad():
        for turn in ("vvxyz", "xavwq", "aaaaq"):
            torch.testing.assert_close(run(chat(turn)).logits, model(chat(turn)).logits, rtol=1e-10, atol=1e-12)
    assert counter.frame_count == 1


def test_static_cache_with_compiled_steps(adapted, ids):
    from transformers import CompileConfig

    model, options = adapted(), {"max_new_tokens": 5, "do_sample": False, "cache_implementation": "static"}
    config = CompileConfig(backend="eager")
    config._compile_all_devices = True
    expected = model.generate(ids, max_new_tokens=5, do_sample=False)
    assert torch.equal(model.generate(ids, compile_config=config, **options), expected)


@pytest.mark.parametrize(
    ("merge", "options"),
    [
        (False, {}),
        (True, {}),
        (False, {"prefill_chunk_size": 7}),
        pytest.param(True, {"prefill_chunk_size": 7}, marks=pytest.mark.slow),
    ],
    ids=["unmerged", "merged", "unmerged-chunked", "merged-chunked"],
)
def test_compiled_steps_of_generate_are_one_graph(adapted, ids, merge, options):
    """Lowered, as on a GPU, where `generate` compiles the steps on a static cache by itself."""
    from torch._dynamo.testing import CompileCounterWithBackend

    model, counter = adapted(), CompileCounterWithBackend("aot_eager")
    if merge:
        model.merge_adapter()
    plain = {"max_new_tokens": 5, "min_new_tokens": 5, "do_sample": False, **options}
    expected = model.generate(ids, **plain)
    got = model.generate(ids, **plain, cache_implementation="static", compile_config=config_of(counter))
    assert torch.equal(got, expected) and counter.frame_count >= 1


@pytest.mark.parametrize(("by_generate", "size"), [(True, 11), (True, 17), (False, 12)])
def test_generate_compiles_its_steps_alone(one_layer, chat, by_generate, size):
    """A chunk begins inside or behind what opens its turn, or is one token, and the model chooses placeholders: a graph
    would route by what it sees. Not `by_generate`: by `model.compile()`."""
    from torch._dynamo.testing import CompileCounterWithBackend

    model, prompt, counter = one_layer(), chat("xyz", "pp", "vvxyz"), CompileCounterWithBackend("eager")
    plain = {"max_new_tokens": 4, "logits_processor": [always_an_image], "output_logits": True, "do_sample": False}
    plain["return_dict_in_generate"] = True
    expected = model.generate(prompt, **plain)
    if not by_generate:
        model.get_base_model().compile(backend=counter)
    how = {"compile_config": config_of(counter)} if by_generate else {"disable_compile": True}
    got = model.generate(prompt, prefill_chunk_size=size, cache_implementation="static", **plain, **how)
    torch.testing.assert_close(got.logits, expected.logits, rtol=1e-4, atol=1e-5)
    assert counter.frame_count == 1
    base = vars(model.get_base_model())
    assert "get_compiled_call" not in base and (base.get("_compiled_call_impl") is None) == by_generate


def config_of(compiler):
    """Has `generate` compile, as it does by itself on a GPU."""
    from transformers import CompileConfig

    config = CompileConfig(backend=lambda graph, inputs, **_: compiler(graph, inputs), fullgraph=True)
    config._compile_all_devices = True
    return config


def always_an_image(ids, scores):
    return torch.full_like(scores, -torch.inf).index_fill(1, torch.tensor([50]), 0)


@pytest.mark.skipif(
    Version(transformers.__version__) < Version("5.18"),
    reason="transformers 5.17 itself computes other logits in chunks that go on from a cache",
)
def test_chunks_of_an_unknown_prompt_are_checked(one_layer, chat):
    """Without a mask, ids that continue a cache do not tell where it ends."""
    from torch._dynamo.backends.debugging import eager
    from transformers import StaticCache

    model, first = one_layer(), chat("xyz", "pp")
    cache = StaticCache(config=model.config, max_cache_len=32)
    with torch.no_grad():
        model(first, past_key_values=cache)
    options = {"past_key_values": cache, "prefill_chunk_size": 5, "max_new_tokens": 1}
    with pytest.raises(ValueError, match="their user turn is not complete in this forward"):
        model.generate(torch.cat([first, chat("vvxyz")], 1), compile_config=config_of(eager), **options)


def test_a_compiled_step_outside_generate_may_be_media(one_layer, chat):
    from transformers import StaticCache

    model, ids = one_layer(interaction="none").double(), chat("xyvaz")
    run, cache = compiled(model), StaticCache(config=model.config, max_cache_len=16)
    with torch.no_grad():
        expected, logits = model(ids).logits, [model(ids[:, :1], past_key_values=cache).logits]
        for column in range(1, ids.shape[1]):
            at = {"position_ids": torch.tensor([[column]]), "past_key_values": cache}
            logits.append(run(input_ids=ids[:, column : column + 1], **at).logits)
    torch.testing.assert_close(torch.cat(logits, 1), expected)
