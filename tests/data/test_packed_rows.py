"""What a packed batch holds: positions, turns, media in order, padding, labels; and what is not packed."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers

from moka_peft import RoutingSpec, route
from moka_peft.data import Collator
from moka_peft.data.packing import IGNORED, Packing, padding_share

from .conversations import conversation, mixed
from .packed_models import FAMILIES, composite, llava, packed_and_alone, qwen2_5_vl, qwen2_vl


@pytest.fixture(params=FAMILIES, ids=lambda build: build.__name__)
def family(request: Any) -> Any:
    """(builder, samples)"""
    return request.param, mixed(FAMILIES[request.param])


def test_rows_are_routed_as_the_samples_alone(family: Any):
    build, samples = family
    model, processor = build("sdpa")
    spec = RoutingSpec.from_pretrained(model.config, processor)
    packed, alone, places = packed_and_alone(model, processor, samples)
    positions = packed["position_ids"] if packed["position_ids"].dim() == 2 else packed["position_ids"][0]
    for read in (spec, replace(spec, user_open=())):  # without an open, the row itself opens the first turn
        routing = route(packed["input_ids"], read, position_ids=positions)
        last = {}
        for index, row, column in places:
            own = route(alone[index]["input_ids"], read)
            columns = slice(column, column + own.shape[1])
            turn = torch.where(own.turn[0] > 0, own.turn[0] + last.get(row, 0), 0)
            assert torch.equal(routing.modality[row, columns], own.modality[0])
            assert torch.equal(routing.turn[row, columns], turn)
            last[row] = max(int(turn.max()), last.get(row, 0))
    whole = route(packed["input_ids"], replace(spec, user_open=()))
    assert not torch.equal(whole.turn, routing.turn)  # reading the row as one sample loses turns


@pytest.mark.parametrize("build", [qwen2_vl, qwen2_5_vl], ids=lambda build: build.__name__)
@pytest.mark.parametrize("kinds", [("image",), ("image", "video")], ids="-".join)
def test_positions_are_the_models_own(build: Any, kinds: tuple[str, ...]):
    model, processor = build("sdpa")
    samples = mixed(kinds)
    processor.video_processor.fps = 1.0
    collator = Collator(processor, packing=True, model_config=model.config)
    packed = collator(samples)
    batch = Collator(processor)(samples)
    names = ("input_ids", "attention_mask", "image_grid_thw", "video_grid_thw", "mm_token_type_ids")
    names += ("second_per_grid_ts",) if build is qwen2_5_vl else ()
    expected, _ = model.model.get_rope_index(**{name: batch[name] for name in names if name in batch})
    mask = batch["attention_mask"].bool()
    torch.testing.assert_close(packed["position_ids"][1:, 0], expected[:, mask])
    assert torch.equal(packed["position_ids"][0, 0], torch.cat([torch.arange(n) for n in mask.sum(1).tolist()]))


def test_media_follow_their_placeholders():
    model, processor = llava("sdpa")
    samples = mixed(("image",))
    packed, alone, places = packed_and_alone(model, processor, samples)
    assert [index for index, _, _ in places] != sorted(index for index, _, _ in places)
    pixels = [alone[index]["pixel_values"] for index, _, _ in places if "pixel_values" in alone[index]]
    assert torch.equal(packed["pixel_values"], torch.cat(pixels))


def test_padding_is_a_segment_of_its_own_without_loss():
    model, processor = llava("sdpa")
    packed, alone, places = packed_and_alone(model, processor, mixed(("image",)))
    real = sum(batch["input_ids"].shape[1] for batch in alone)
    share = padding_share(packed, processor.tokenizer.pad_token_id)
    assert share == pytest.approx(1 - real / packed["input_ids"].numel()) and share > 0
    row = next(r for r in range(2) if packed["position_ids"][r, -1] + 1 < alone[places[-1][0]]["input_ids"].shape[1])
    rest = int(packed["position_ids"][row, -1]) + 1
    assert (packed["input_ids"][row, -rest:] == processor.tokenizer.pad_token_id).all()
    assert (packed["labels"][row, -rest:] == IGNORED).all() and packed["labels"][row, -rest - 1] != IGNORED
    batch = Collator(processor)(mixed(("image",)))
    assert padding_share(batch, 0) == pytest.approx(1 - real / batch["input_ids"].numel())


def test_flash_attention_gets_one_row():
    """transformers splits a row by its positions only where the batch has one."""
    model, processor = llava("sdpa")
    config = transformers.LlavaConfig.from_dict(model.config.to_dict())
    config._attn_implementation_internal = "flash_attention_2"
    samples = mixed(("image",))
    packed = Collator(processor, packing=True, max_length=80, model_config=config)(samples)
    assert packed["input_ids"].shape == (1, sum(Collator(processor).count_tokens(samples)))


def test_a_label_does_not_cross_into_the_next_sample():
    model, processor = composite("sdpa")
    packing = Packing.of(processor, model.config, None)
    row = {"input_ids": torch.tensor([[5, 6]]), "labels": torch.tensor([[5, 6]])}
    assert packing.pack([row, row])["labels"].tolist() == [[IGNORED, 6, IGNORED, 6]]


def config(model_type: str, text: str = "llama", vision: str = "clip_vision_model") -> Any:
    parts = [SimpleNamespace(model_type=name) for name in (text, vision)]
    return SimpleNamespace(model_type=model_type, get_text_config=lambda: parts[0], vision_config=parts[1])


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (None, "`model_config` is missing"),
        (config("gemma3"), "`packing` does not support gemma3: expected one of moka_composite, llava, qwen2_audio"),
        (config("llava", "bloom"), "does not know whether the language model bloom keeps the samples of a row apart"),
        (config("llava", "mistral", "pixtral"), "does not support LLaVA with Pixtral"),
    ],
)
def test_other_models_are_refused_by_name(config: Any, message: str):
    with pytest.raises(ValueError, match=message):
        Collator(llava("sdpa")[1], packing=True, model_config=config)


def test_a_sample_longer_than_a_row_is_named():
    model, processor = llava("sdpa")
    collator = Collator(processor, packing=True, max_length=20, model_config=model.config)
    with pytest.raises(ValueError, match="sample `long`: sample has .* tokens, expected at most 20"):
        collator([conversation("long", ["What is in the picture?" * 3])])


def test_blanks_and_samples_without_loss_are_packed_too():
    model, processor = composite("sdpa")
    text = conversation("text", ["So?"])
    text.messages[1]["loss"] = False
    collator = Collator(processor, packing=True, kinds=("image", "audio"), model_config=model.config)
    packed = collator([text, mixed(("image",))[0]])
    assert len(packed["input_features"]) == 1 and len(packed["pixel_values"]) == 1
    starts = [0, *(packed["position_ids"][0].diff() != 1).nonzero()[:, 0].add(1).tolist()]
    learnt = [int((labels != IGNORED).sum()) for labels in packed["labels"][0].tensor_split(starts[1:])]
    assert learnt[0] == learnt[2] == 0 < learnt[1] and len(starts) == 3
