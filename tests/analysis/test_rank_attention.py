import pytest
import torch
from peft import LoraConfig, get_peft_model

from moka_peft import MokaConfig
from moka_peft.analysis.rank_attention import capture_attention, check_has_attention
from moka_peft.baselines.moka_shared_a import MokaSharedAConfig

LAMBDAS = {"visual": 0.7, "audio": 1.3}


@pytest.fixture
def adapted(tiny_lm, spec):
    """adapted(interaction=...) -> a MokA model in float64 whose B are not zero."""

    def build(kind=MokaConfig, **options):
        config = kind(
            r=3, lora_alpha=6, routing=spec, modalities=("text", "visual", "audio"), init_lora_weights=False,
            cross_scale=tuple(LAMBDAS.values()), **options,
        )  # fmt: skip
        return get_peft_model(tiny_lm(), config).double()

    return build


def run(model, ids, mask=None):
    """The attention of a forward, and what every layer got and gave in its first row."""
    seen, layers = {}, {name: m for name, m in model.base_model.model.named_modules() if hasattr(m, "moka_B")}
    for name, layer in layers.items():
        layer.register_forward_hook(lambda _, args, output, name=name: seen.__setitem__(name, (args[0][0], output[0])))
    captured = capture_attention(model, {"input_ids": ids, "attention_mask": mask, "use_cache": False})
    assert list(captured.layers) == list(layers) and len(layers) == 14
    return captured, layers, seen


def z_of(layer, x, routing, scaling):
    """What the modalities' A make of a row, token by token."""
    names = ("text", "visual", "audio")
    z = torch.zeros(len(x), layer.r["default"], dtype=x.dtype)
    for t, m in enumerate(routing.modality[0].tolist()):
        if m >= 0:
            A = layer.moka_A if hasattr(layer, "moka_A") else getattr(layer, f"moka_A_{names[m]}")
            z[t] = scaling * (A["default"].weight @ x[t])
    return z


def delta_of(layer, attention, x, routing, options):
    """The layer's delta as it follows from the attention: s B (z + lambda sum_k w_k z_k)."""
    scaling, before = layer.scaling["default"], options.get("scale_before_attention", False)
    z = z_of(layer, x, routing, scaling if before else 1.0)
    u = z.clone()
    for q, query in enumerate(attention.queries.tolist()):
        for k, key in enumerate(attention.keys.tolist()):
            medium = key if options["interaction"] == "text_query" else query
            value = z[key] if attention.is_value[q, k] else torch.zeros_like(z[key])
            lam = (0.0, *LAMBDAS.values())[int(routing.modality[0, medium])]
            u[query] += lam * attention.weights[q, k] * value
    return (u if before else scaling * u) @ layer.moka_B["default"].weight.T


@pytest.mark.parametrize(
    "options",
    [
        {"interaction": "cross_attention"},
        {"interaction": "cross_attention", "scale_before_attention": True},
        {"interaction": "cross_attention", "instruction_span": "contiguous"},
        {"interaction": "text_query"},
        {"interaction": "mean", "instruction_span": "contiguous"},
        {"kind": MokaSharedAConfig, "interaction": "cross_attention"},
    ],
    ids=lambda options: "-".join(str(getattr(value, "__name__", value)) for value in options.values()),
)
@torch.no_grad()
def test_the_layers_own_delta_follows_from_the_weights(adapted, chat, options):
    ids = chat("vqvpaz", "rr", "uav", "r")
    model = adapted(**options)
    captured, layers, seen = run(model, ids)
    for name, (x, output) in seen.items():
        layer, attention = layers[name], captured.layers[name]
        expected = delta_of(layer, attention, x, captured.routing, options)
        torch.testing.assert_close(output - layer.base_layer(x), expected, rtol=1e-9, atol=1e-12)
        assert attention.queries.numel() and (attention.weights >= 0).all()


def test_a_query_spreads_one_over_the_keys_of_its_own_turn(adapted, chat):
    captured, _, _ = run(adapted(interaction="cross_attention"), chat("vqp", "r", "aaz", "r"))
    turn = captured.routing.turn[0]
    for attention in captured.layers.values():
        assert torch.allclose(attention.weights.sum(1), torch.ones(3, dtype=torch.float64))
        other = turn[attention.queries, None] != turn[attention.keys]
        assert other.any() and not attention.weights[other].any() and not attention.reach[other].any()


def test_words_that_ask_spread_one_over_each_modality(adapted, chat):
    captured, _, _ = run(adapted(interaction="text_query"), chat("vvaq", "r"))
    for attention in captured.layers.values():
        modality = captured.routing.modality[0, attention.keys]
        for m in (1, 2):
            assert attention.weights[:, modality == m].sum(1).tolist() == pytest.approx([1.0])


def test_a_contiguous_span_loses_attention_to_its_gaps(adapted, chat):
    captured, _, _ = run(adapted(interaction="cross_attention", instruction_span="contiguous"), chat("qvap", "r"))
    for attention in captured.layers.values():
        assert attention.is_value.sum(1).tolist() == [2, 2] and attention.reach.sum(1).tolist() == [4, 4]
        assert (attention.weights[~attention.is_value] > 0).all()


def test_the_first_row_is_not_changed_by_padding(adapted, chat):
    model, ids = adapted(interaction="cross_attention"), chat("vqa", "rr")
    alone, _, _ = run(model, ids)
    padded = torch.cat([torch.zeros(1, 3, dtype=torch.int64), ids], 1)
    mask = torch.cat([torch.zeros(1, 3, dtype=torch.int64), torch.ones_like(ids)], 1)
    both, _, _ = run(model, torch.cat([padded, padded.roll(1)]), torch.cat([mask, mask]))
    for name, attention in alone.layers.items():
        assert torch.equal(both.layers[name].queries, attention.queries + 3)
        assert torch.allclose(both.layers[name].weights, attention.weights)


def test_no_media_no_attention(adapted, chat):
    captured, _, _ = run(adapted(interaction="cross_attention"), chat("qp", "r"))
    assert not any(attention.queries.numel() for attention in captured.layers.values())


def test_the_mode_and_the_hooks_are_as_before(adapted, chat):
    model = adapted(interaction="cross_attention").train()
    capture_attention(model, {"input_ids": chat("vq", "r"), "use_cache": False})
    assert model.training
    assert not any(m._forward_pre_hooks for m in model.modules() if hasattr(m, "moka_B"))


def test_adapters_without_attention_are_refused(adapted, tiny_lm):
    for model in (adapted(interaction="none"), get_peft_model(tiny_lm(), LoraConfig(target_modules=["q_proj"]))):
        with pytest.raises(ValueError, match="has no attention between media and instruction"):
            check_has_attention(model)
