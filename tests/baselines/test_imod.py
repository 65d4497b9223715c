"""IMoD: LoRA forward, and a gradient of A that is the task's plus the constraints', against loops over tokens."""

import pytest
import torch
from peft import PeftModel, get_peft_model

from moka_peft import Routing, use_routing
from moka_peft.baselines.imod import ImodConfig

NAMES = ("text", "visual", "audio")
MIXED, PADDED, NO_MEDIA, NO_TEXT = [0, 1, 1, 2, 0], [-1, -1, 0, 0, 2], [0, 0, 0, 0, -1], [1, 2, -1, -1, -1]


def adapted(**settings):
    torch.manual_seed(0)
    base = torch.nn.Sequential(torch.nn.Linear(12, 10)).double()
    names = dict(target_modules=["0"], modalities=NAMES, init_lora_weights=False)
    return get_peft_model(base, ImodConfig(r=3, lora_alpha=6, **names, **settings)).train()


def routing_of(*rows):
    modality = torch.tensor(rows)
    return Routing(modality, torch.zeros_like(modality), NAMES)


def input_of(routing):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(*routing.shape, 12, dtype=torch.float64, generator=generator, requires_grad=True)


def decoupling(A, masks, x, modality):
    """The mean over rows of what a row's tokens cost on average, for text and for the others."""
    M_t, M_o, M_s = masks
    total = 0
    for own, tokens in ((A * (M_t + M_s), modality == 0), (A * (M_o + M_s), modality > 0)):
        rows = [
            torch.stack([(own @ x[b, t] - A @ x[b, t]).square().sum() for t in tokens[b].nonzero()[:, 0]]).mean()
            for b in range(len(x))
            if tokens[b].any()
        ]
        total = total + (torch.stack(rows).mean() if rows else 0)
    return total


def alignment(A, masks, x, modality):
    rows, cos = [], torch.nn.functional.cosine_similarity
    for b in range(len(x)):
        s_t, s_o = (x[b][tokens] @ (A * masks[2]).T for tokens in (modality[b] == 0, modality[b] > 0))
        if len(s_t) and len(s_o):
            c_t, c_o = (torch.stack([cos(row, s.mean(0), dim=0) for row in s]).mean() for s in (s_t, s_o))
            rows.append(1 - (c_t + c_o) * cos(s_t.mean(0), s_o.mean(0), dim=0))
    return torch.stack(rows).mean() if rows else A.sum() * 0


def gradients(model, routing, x, sent):
    """Of the task alone, sum(sent * y), by the model: x's, A's and B's."""
    layer = model.base_model.model[0]
    weights = [x, layer.moka_A["default"].weight, layer.moka_B["default"].weight]
    with use_routing(model, routing):
        return torch.autograd.grad(model(x), weights, sent)


def expected_gradients(model, routing, x, sent, l1, l2):
    layer = model.base_model.model[0]
    A, B = layer.moka_A["default"].weight, layer.moka_B["default"].weight
    masks = [(layer.parts("default") == part).double() for part in range(3)]
    y = layer.base_layer(x) + 2 * x @ A.T @ B.T
    of_x, of_A, of_B = torch.autograd.grad(y, [x, A, B], sent)
    loss = l1 * decoupling(A, masks, x.detach(), routing.modality)
    loss = loss + l2 * alignment(A, masks, x.detach(), routing.modality)
    return of_x, of_A + torch.autograd.grad(loss, A)[0], of_B


@pytest.mark.parametrize(
    "rows",
    [[MIXED], [MIXED, PADDED], [MIXED, PADDED, NO_MEDIA, NO_TEXT], [NO_MEDIA], [NO_TEXT]],
    ids=["one", "padded", "all", "no media", "no text"],
)
@pytest.mark.parametrize(("l1", "l2"), [(1.0, 1e-4), (0.7, 0.9), (0.0, 2.0), (1.5, 0.0)])
def test_gradients(rows, l1, l2):
    model, routing = adapted(decoupling_weight=l1, alignment_weight=l2), routing_of(*rows)
    x, sent = input_of(routing), torch.randn(len(rows), 5, 10, dtype=torch.float64)
    got = gradients(model, routing, x, sent)
    expected = expected_gradients(model, routing, x, sent, l1, l2)
    for gradient, wanted in zip(got, expected, strict=True):
        torch.testing.assert_close(gradient, wanted, rtol=1e-10, atol=1e-11)


def test_constraints_do_not_grow_with_the_loss_or_the_batch():
    model = adapted()
    once, thrice = routing_of(MIXED), routing_of(MIXED, MIXED, MIXED)
    x, nothing = input_of(once), torch.zeros(1, 5, 10, dtype=torch.float64)
    of_A = gradients(model, once, x, nothing)[1]
    assert of_A.abs().max() > 1e-3
    again = gradients(model, thrice, x.repeat(3, 1, 1), nothing.repeat(3, 1, 1))[1]
    torch.testing.assert_close(again, of_A, rtol=1e-10, atol=1e-12)


def test_plain_where_it_does_not_train():
    model, routing = adapted().eval(), routing_of(MIXED, PADDED)
    x, sent = input_of(routing), torch.randn(2, 5, 10, dtype=torch.float64)
    of_A = expected_gradients(model, routing, x, sent, 0.0, 0.0)[1]
    torch.testing.assert_close(gradients(model, routing, x, sent)[1], of_A, rtol=1e-10, atol=1e-11)
    with use_routing(model, routing), torch.no_grad():
        evaluated = model(x)
        assert torch.equal(model.train()(x), evaluated)


def test_constraints_cost_nothing_without_gradients(monkeypatch):
    monkeypatch.setattr("moka_peft.baselines.imod.constraint", None)
    model, routing = adapted(), routing_of(MIXED)
    with use_routing(model, routing), torch.no_grad():
        model(input_of(routing))


def test_merges_completely():
    model, routing = adapted(), routing_of(MIXED)
    x = input_of(routing)
    with use_routing(model, routing):
        expected = model(x)
        model.merge_adapter()
        torch.testing.assert_close(model(x), expected, rtol=1e-12, atol=1e-12)
        model.unmerge_adapter()
        torch.testing.assert_close(model(x), expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(model.merge_and_unload()(x), expected, rtol=1e-12, atol=1e-12)


def test_shares_follow_the_depth_of_the_decoder(tiny_lm):
    """Also where only some of its layers are adapted."""
    settings = dict(r=4, target_modules=["q_proj"], modalities=NAMES, shared_share=0.25, shared_growth=0.5)
    model = get_peft_model(tiny_lm(), ImodConfig(**settings, layers_to_transform=[1]))
    parts = model.get_submodule("base_model.model.model.layers.1.self_attn.q_proj").parts("default")
    assert (parts == 2).float().mean() == 0.5
    model.add_adapter("other", ImodConfig(**settings))
    parts = model.get_submodule("base_model.model.model.layers.0.self_attn.q_proj").parts("other")
    assert (parts == 2).float().mean() == 0.25


def test_loaded_adapter_has_the_same_parts(tmp_path):
    model = adapted(mask_seed=7, shared_share=0.5, shared_growth=0.1)
    expected = model.base_model.model[0].parts("default")
    model.save_pretrained(tmp_path)
    base = torch.nn.Sequential(torch.nn.Linear(12, 10)).double()
    again = PeftModel.from_pretrained(base, tmp_path, is_trainable=True)
    assert torch.equal(again.base_model.model[0].parts("default"), expected)
    assert not torch.equal(adapted(shared_share=0.5).base_model.model[0].parts("default"), expected)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"shared_share": -0.1}, "`shared_share`: expected a finite number >= 0, got -0.1"),
        (
            {"shared_share": 0.7},
            r"`shared_growth`: expected at most 1 - shared_share, .* got 0.4 with shared_share=0.7",
        ),
        ({"alignment_weight": float("nan")}, "`alignment_weight`: expected a finite number >= 0, got nan"),
        ({"mask_seed": -1}, "`mask_seed`: expected an integer >= 0, got -1"),
    ],
)
def test_wrong_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        ImodConfig(**settings)
