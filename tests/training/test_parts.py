"""Projectors, towers and embeddings of every family: found by structure, trained, saved and loaded again."""

from __future__ import annotations

import pytest
import torch
from peft import PeftModel
from torch import nn
from transformers import PreTrainedModel

from moka_peft import MokaConfig
from moka_peft.composite import load_tiny_avt
from moka_peft.training.parts import PARTS, adapt_with_parts, choose_parts, expected_warnings, find_parts, part_of

from ..families.case import Case
from ..families.zoo import FAMILIES, REFUSED

OMNI = ["model.audio_tower.proj", "model.visual.merger"]
PHI4 = [
    *(f"image_embed.img_projection_{way}" for way in ("up", "down")),
    *(f"audio_embed.{way}_proj_for_{kind}" for kind in ("speech", "vision_speech") for way in ("up", "down")),
]
PROJECTORS = {
    **dict.fromkeys(("qwen2_vl", "qwen2_5_vl", "qwen3_5"), ["model.visual.merger"]),
    "qwen3_vl": ["model.visual.merger", "model.visual.deepstack_merger_list.0"],
    "glm4v": ["model.visual.merger", "model.visual.downsample"],
    "qwen2_5_omni_thinker": OMNI,
    "qwen2_5_omni": [f"thinker.{name}" for name in OMNI],
    "qwen3_omni_moe_thinker": [
        *(f"model.audio_tower.{name}" for name in ("proj1", "proj2")),
        *(f"model.visual.{name}" for name in ("merger_list.0", "merger")),
    ],
    "granite_speech": ["model.projector"],
    **dict.fromkeys(("gemma3n", "gemma4"), ["model.embed_vision", "model.embed_audio"]),
    **dict.fromkeys(("idefics3", "smolvlm"), ["model.connector"]),
    "minicpmv4_6": ["model.merger"],
    "phi4_multimodal": [f"model.embed_tokens_extend.{name}" for name in PHI4],
}
OTHERS = ["model.multi_modal_projector"]  # of all other families


@pytest.fixture(scope="module")
def case():
    """case(name) -> the family, built once."""
    built: dict[str, Case] = {}
    return lambda name: built.setdefault(name, Case(FAMILIES[name]))


def plain(names: list[str]) -> list[str]:
    """Names as on every transformers: 5.17 has the encoders of Qwen-Omni one level higher."""
    return sorted(name.replace("model.", "") for name in names)


@pytest.mark.parametrize("name", FAMILIES)
def test_the_projectors_of_a_family(case, name: str):
    found = find_parts(case(name).base)
    assert plain(found["projectors"]) == plain(PROJECTORS.get(name, OTHERS))
    towers = [case(name).base.get_submodule(tower) for tower in found["towers"]]
    assert towers and all(isinstance(tower, PreTrainedModel) for tower in towers)


@pytest.mark.parametrize("name", FAMILIES)
def test_parts_and_decoder_are_the_whole_model(case, name: str):
    """Nothing that has weights is left out: only the decoder's layers and single parameters are no part."""
    base = case(name).run(case(name).base)
    parts = {part: [n.removeprefix("thinker.") for n in names] for part, names in find_parts(case(name).base).items()}
    decoder = {id(weight) for weight in base.get_decoder().parameters()}
    rest = {n for n, p in base.named_parameters() if part_of(n, parts) == "adapter" and id(p) not in decoder}
    assert rest <= {"model.image_newline"} or name == "phi4_multimodal"


def test_a_model_that_cannot_be_routed_has_parts_too():
    assert find_parts(REFUSED["mllama"]())["projectors"] == OTHERS


def test_the_composite():
    parts = find_parts(load_tiny_avt()[0])
    assert parts["projectors"] == ["vision_projector", "audio_projector"]
    assert parts["towers"] == ["vision_encoder", "audio_encoder"]


def test_a_part_that_is_missing_is_named():
    class Bare(nn.Module):
        def __init__(self):
            super().__init__()
            self.decoder = nn.Linear(2, 2)

        def get_decoder(self):
            return self.decoder

        get_input_embeddings = get_output_embeddings = lambda self: None

    with pytest.raises(ValueError, match="`train.towers` finds none in Bare"):
        choose_parts(Bare(), ["towers"])


def step(model: PeftModel, case: Case) -> None:
    """One large step on every batch of the family."""
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=0.02)
    for rows in case.batches:
        inputs = case.family.inputs(rows)
        logits = case.run(model)(**inputs).logits
        logits.float().logsumexp(-1).square().mean().backward()
    optimizer.step()


@pytest.mark.parametrize("name", FAMILIES)
def test_trained_projectors_come_back(case, name: str, tmp_path):
    check_round_trip(case(name), ("projectors",), tmp_path)


@pytest.mark.parametrize("train", [PARTS, ("towers",), ("towers", "projectors")], ids="+".join)
@pytest.mark.parametrize("name", ["qwen2_5_vl", "qwen2_audio", "llava", "gemma3n", "phi4_multimodal"])
def test_trained_parts_come_back(case, name: str, train: tuple[str, ...], tmp_path):
    check_round_trip(case(name), train, tmp_path)


def check_round_trip(case: Case, train: tuple[str, ...], folder) -> None:
    model = adapt_with_parts(case.fresh_base(), MokaConfig(r=2, routing=case.family.spec), train).train()
    parts = find_parts(case.base)
    learns = {part_of(name, parts) for name, weight in model.named_parameters() if weight.requires_grad}
    assert learns == {"adapter", *train}
    assert find_parts(model.get_base_model()) == parts
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    step(model, case)
    changed = {part_of(name, parts) for name, weight in model.named_parameters() if not weight.equal(before[name])}
    assert changed == learns
    model.eval().requires_grad_(False).save_pretrained(folder)  # frozen as loaded: it decides which convolution runs
    rows = case.batches[0]
    with expected_warnings():
        loaded = PeftModel.from_pretrained(case.fresh_base(), folder).eval()
    for expected, got in zip(case.logits(model, rows), case.logits(loaded, rows), strict=True):
        assert torch.equal(expected, got)


def test_tied_embeddings_stay_tied(case):
    tied = case("gemma3n")
    model = adapt_with_parts(tied.fresh_base(), MokaConfig(r=2, routing=tied.family.spec), ["embeddings"])
    step(model, tied)
    base = model.get_base_model()
    copies = [m.modules_to_save["default"].weight for m in (base.get_input_embeddings(), base.get_output_embeddings())]
    assert copies[0] is copies[1]
    assert not copies[0].equal(base.get_input_embeddings().original_module.weight)


def test_a_frozen_tower_does_not_train_its_statistics(case):
    """Granite Speech's encoder has batch norms, whose running statistics no adapter file holds."""
    speech = case("granite_speech")
    model = adapt_with_parts(speech.fresh_base(), MokaConfig(r=2, routing=speech.family.spec), []).train()
    step(model, speech)
    before = dict(speech.base.named_buffers())
    assert all(buffer.equal(before[name]) for name, buffer in model.get_base_model().named_buffers())


@pytest.mark.parametrize("name", ["qwen2_5_vl", "qwen2_audio", "llava", "gemma3n", "phi4_multimodal"])
def test_parts_of_a_half_precision_model_train_in_float32(case, name: str):
    family, rows = case(name).family, case(name).batches[0]
    base = case(name).fresh_base().to(torch.bfloat16)
    inputs = {
        key: value.to(torch.bfloat16) if value.is_floating_point() else value
        for key, value in family.inputs(rows).items()
    }
    with torch.no_grad():
        expected = case(name).run(base.eval())(**inputs).logits
        model = adapt_with_parts(base, MokaConfig(r=2, routing=family.spec), PARTS).eval()
        got = case(name).run(model)(**inputs).logits
    assert {weight.dtype for weight in model.parameters() if weight.requires_grad} == {torch.float32}
    assert got.dtype == expected.dtype == torch.bfloat16
    exact = case(name).base.eval()
    with torch.no_grad():
        right = case(name).run(exact)(**family.inputs(rows)).logits
    assert (got - right).square().mean() < 2 * (expected - right).square().mean()  # rounding alone
    with torch.autocast("cpu", torch.bfloat16):
        case(name).run(model.train())(**inputs).logits.float().square().mean().backward()
