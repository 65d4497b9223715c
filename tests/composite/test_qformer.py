"""The Q-Former projector against loops in float64, and inside a composite: weights, precision, saving, finding."""

import copy
import math

import pytest
import torch
from peft.utils import ModulesToSaveWrapper
from torch import Tensor, nn

from moka_peft.composite import CompositeForConditionalGeneration
from moka_peft.composite.qformer import QFormerProjector
from moka_peft.training.full_precision import train_in_float32
from moka_peft.training.parts import choose_parts, find_parts

from .conftest import AUDIO, IMAGE_ID, VISION, composite_config

SIZES = {"num_queries": 3, "hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 12}
SECTION = {"type": "qformer", **SIZES}


def normalise(x: Tensor, norm: nn.Module) -> Tensor:
    centred = x - x.mean()
    return centred / (centred.square().mean() + norm.eps).sqrt() * norm.weight + norm.bias


def attend(block: nn.Module, states: Tensor, read: Tensor) -> Tensor:
    """BERT's attention of each row of `states` [Q, D] to `read` [T, D'], head by head, residual and norm behind it."""
    heads, size = block.attention.num_attention_heads, block.attention.attention_head_size
    query, key, value = block.attention.query(states), block.attention.key(read), block.attention.value(read)
    rows = []
    for row in range(len(states)):
        mixed = []
        for head in range(heads):
            span = slice(head * size, (head + 1) * size)
            scores = torch.stack([query[row, span] @ key[t, span] / math.sqrt(size) for t in range(len(read))])
            weights = scores.exp() / scores.exp().sum()
            mixed.append(sum(weight * value[t, span] for t, weight in enumerate(weights)))
        rows.append(normalise(block.output.dense(torch.cat(mixed)) + states[row], block.output.LayerNorm))
    return torch.stack(rows)


def gelu(x: Tensor) -> Tensor:
    return x * (1 + torch.erf(x / math.sqrt(2))) / 2


def reference(projector: QFormerProjector, features: Tensor) -> Tensor:
    """One frame's features [T, D_in] -> [queries, D_out]."""
    features = torch.stack([normalise(feature, projector.norm) for feature in features])
    states = torch.stack([normalise(query, projector.qformer.layernorm) for query in projector.queries[0]])
    for layer in projector.qformer.encoder.layer:
        states = attend(layer.crossattention, attend(layer.attention, states, states), features)
        hidden = layer.output_query.dense(gelu(layer.intermediate_query.dense(states)))
        states = torch.stack([normalise(row, layer.output_query.LayerNorm) for row in hidden + states])
    return projector.proj[2](gelu(projector.proj[0](states)))


def scrambled(width_in: int = 6, width_out: int = 10) -> QFormerProjector:
    """In float64, with no weight, bias or norm at its first value."""
    torch.manual_seed(0)
    projector = QFormerProjector(width_in, width_out, **SIZES).double().eval()
    with torch.no_grad():
        for weight in projector.parameters():
            weight.normal_(std=0.7)
    return projector


def composite(**overrides) -> CompositeForConditionalGeneration:
    torch.manual_seed(0)
    sections = {"vision_projector": SECTION, "audio_projector": SECTION}
    return CompositeForConditionalGeneration(
        composite_config(VISION["clip"](), AUDIO["whisper"](), **{**sections, **overrides})
    )


def images(count: int = 2, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    ids = torch.tensor([[1, *[IMAGE_ID] * 3 * count, 9, 10]])
    return {"input_ids": ids, "pixel_values": torch.randn(count, 3, 16, 16, dtype=dtype)}


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_it_equals_loops_over_queries_heads_and_features(attention):
    projector = scrambled()
    projector.qformer.set_attn_implementation(attention)
    features = torch.randn(4, 7, 6, dtype=torch.float64)
    expected = torch.stack([reference(projector, frame) for frame in features])
    torch.testing.assert_close(projector(features), expected, rtol=1e-9, atol=1e-9)


def test_any_number_of_features_becomes_the_same_number_of_embeddings():
    projector = scrambled()
    assert [projector(torch.randn(2, t, 6).double()).shape for t in (1, 9)] == [(2, 3, 10)] * 2


@pytest.mark.parametrize(("part", "width_in", "count"), [("visual", 1024, 39_649_280), ("audio", 768, 38_862_336)])
def test_the_published_sizes_have_the_published_parameters(part, width_in, count):
    """Counted by hand from the shape of BERT-base; the language model is LLaMA2-7B."""
    width, inner, out, queries = 768, 3072, 4096, 32
    square, norm = width * width + width, 2 * width
    attention = 4 * square + norm
    cross = 2 * square + 2 * (width_in * width + width) + norm
    feed_forward = (width * inner + inner) + (inner * width + width) + norm
    qformer = norm + 2 * (attention + cross + feed_forward)
    by_hand = 2 * width_in + queries * width + qformer + (width * out + out) + (out * out + out)
    with torch.device("meta"):
        projector = QFormerProjector(width_in, out)
    assert sum(weight.numel() for weight in projector.parameters()) == by_hand == count
    assert list(dict(projector.named_children())) == ["norm", "qformer", "proj"]


def test_every_weight_takes_part():
    model = composite()
    model(**images()).logits.square().sum().backward()
    unused = [name for name, weight in model.vision_projector.named_parameters() if weight.grad is None]
    assert not unused


def test_fresh_projectors_are_drawn_and_loaded_ones_kept(tmp_path):
    wide = {**SECTION, "num_queries": 64, "hidden_size": 64}
    model = composite(vision_projector=wide)
    queries = model.vision_projector.queries
    assert abs(queries.std().item() - 0.02) < 1e-3 and abs(queries.mean().item()) < 1e-3
    for name, weight in model.vision_projector.named_parameters():
        if name.endswith("bias"):
            assert not weight.any(), name
        elif weight.ndim == 1:
            assert (weight == 1).all(), name
        else:
            assert 0.018 < weight.std() < 0.022, name
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_()
    model.save_pretrained(tmp_path)
    loaded, report = CompositeForConditionalGeneration.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values())
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), loaded.parameters(), strict=True))


def test_missing_projectors_are_drawn_when_a_model_is_loaded(tmp_path):
    model = composite()
    state = {name: weight for name, weight in model.state_dict().items() if "projector" not in name}
    model.save_pretrained(tmp_path, state_dict=state)
    loaded, report = CompositeForConditionalGeneration.from_pretrained(tmp_path, output_loading_info=True)
    assert {name.split(".")[0] for name in report["missing_keys"]} == {"vision_projector", "audio_projector"}
    for name, weight in loaded.vision_projector.named_parameters():
        expected = 0 if name.endswith("bias") else 1 if weight.ndim == 1 else None
        assert (weight == expected).all() if expected is not None else 0 < weight.abs().max() < 0.15, name


def test_the_same_seed_draws_the_same_projectors():
    assert all(torch.equal(a, b) for a, b in zip(composite().parameters(), composite().parameters(), strict=True))


def test_a_composite_on_the_meta_device_holds_no_memory():
    with torch.device("meta"):
        model = composite()
    assert {weight.device.type for weight in model.vision_projector.parameters()} == {"meta"}


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_a_bfloat16_composite_trains_its_projectors_in_float32(attention):
    """As a recipe with `train: {projectors: true}` arranges it: nothing but rounding differs from float32."""
    exact = composite().eval()
    half = copy.deepcopy(exact).to(torch.bfloat16)
    half.set_attn_implementation(attention)
    batch = images()
    expected = exact(**batch).logits
    rounding = {"rtol": 0, "atol": 8 * torch.finfo(torch.bfloat16).eps * expected.abs().max().item()}
    bare = half(**batch).logits
    assert bare.dtype == torch.bfloat16
    torch.testing.assert_close(bare.float(), expected, **rounding)
    half.vision_projector = ModulesToSaveWrapper(half.vision_projector, "default")
    train_in_float32(half)
    trained = half.vision_projector.modules_to_save["default"]
    assert {weight.dtype for weight in trained.parameters()} == {torch.float32}
    logits = half(**batch).logits
    assert logits.dtype == torch.bfloat16
    torch.testing.assert_close(logits.float(), expected, **rounding)
    logits.float().square().sum().backward()
    assert all(weight.grad.isfinite().all() and weight.grad.any() for weight in trained.parameters())


def test_autocast_trains_it():
    """Mixed precision as `bf16: true` sets it: float32 weights, matmuls in bfloat16."""
    model, batch = composite().eval(), images()
    expected = model(**batch).logits
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(**batch).logits
    rounding = 8 * torch.finfo(torch.bfloat16).eps * expected.abs().max().item()
    torch.testing.assert_close(logits.float(), expected, rtol=0, atol=rounding)
    logits.float().square().sum().backward()
    assert all(weight.grad.isfinite().all() for weight in model.vision_projector.parameters())


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_checkpointing_the_decoder_changes_none_of_its_gradients(use_reentrant):
    model, batch = composite(vision_projector={**SECTION, "dropout": 0.0}).train(), images()

    def gradients() -> list[Tensor]:
        model.zero_grad()
        model(**batch).logits.square().sum().backward()
        return [weight.grad.clone() for weight in model.vision_projector.parameters()]

    expected = gradients()
    enable = getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)
    enable({"use_reentrant": use_reentrant})
    for found, wanted in zip(gradients(), expected, strict=True):
        torch.testing.assert_close(found, wanted)


def test_a_projector_is_one_part():
    model = composite()
    parts = find_parts(model)
    assert parts["projectors"] == ["vision_projector", "audio_projector"]
    assert parts["towers"] == ["vision_encoder", "audio_encoder"]
    assert choose_parts(model, ["projectors"]) == parts["projectors"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_queries": 0}, "`num_queries` of the Q-Former is wrong: expected 1 or more, got 0"),
        ({"hidden_size": 9}, "`hidden_size` .* a multiple of its 2 heads, got 9"),
        ({"depth": 3}, "`qformer` projector has wrong settings"),
    ],
)
def test_sizes_that_make_no_qformer_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        composite(vision_projector={**SECTION, **change})
