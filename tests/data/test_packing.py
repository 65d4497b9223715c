"""Packed rows against the samples alone: every logit, the loss and the gradients; and what must be refused."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers
from peft import LoraConfig, get_peft_model

from moka_peft import MokaConfig, RoutingSpec, route
from moka_peft.data import Collator, Sample
from moka_peft.data.packing import IGNORED, Packing, padding_share
from moka_peft.data.row_plan import pack_rows

from .conversations import conversation, mixed
from .packed_models import FAMILIES, composite, llava, qwen2_5_vl, qwen2_vl


@pytest.fixture(params=FAMILIES, ids=lambda build: build.__name__)
def family(request: Any) -> Any:
    """(builder, samples)"""
    return request.param, mixed(FAMILIES[request.param])


def cast(batch: dict[str, Any], dtype: torch.dtype) -> dict[str, Any]:
    return {k: v.to(dtype) if torch.is_tensor(v) and v.is_floating_point() else v for k, v in batch.items()}


def adapted(model: Any, processor: Any, method: str, spec: RoutingSpec | None = None) -> Any:
    """With an adapter whose delta is as large as what it adds to."""
    targets = r".*(language_model|text_model)\.(model\.)?layers.*\.(q_proj|v_proj|down_proj)"
    if method == "lora":
        model = get_peft_model(model, LoraConfig(r=4, lora_dropout=0.0, target_modules=targets))
    else:
        spec = spec or RoutingSpec.from_pretrained(model.config, processor)
        model = get_peft_model(model, MokaConfig(r=4, lora_dropout=0.0, routing=spec))
    generator = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_" in name or "moka_" in name:
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.2
    return model


def enable_checkpointing(model: Any) -> None:
    """Under the name that this transformers has for it."""
    newest = getattr(model, "activation_checkpointing_enable", None)
    (newest or model.gradient_checkpointing_enable)({"use_reentrant": False})


def packed_and_alone(model: Any, processor: Any, samples: list[Sample]) -> Any:
    """The packed batch of a few rows, the batches of the samples alone, and where each begins: [(i, row, column)]."""
    alone = [Collator(processor)([sample]) for sample in samples]
    lengths = [batch["input_ids"].shape[1] for batch in alone]
    capacity = max(max(lengths), sum(lengths) // 2 + 10)
    config = model.config
    packed = Collator(processor, packing=True, max_length=capacity, model_config=config)(samples)
    places = []
    for row, indices in enumerate(pack_rows(lengths, capacity)):
        column = 0
        for index in indices:
            places.append((index, row, column))
            column += lengths[index]
    assert 1 < len(packed["input_ids"]) < 4 and packed["input_ids"].shape[1] <= capacity
    return packed, alone, places


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_logits_are_those_of_the_samples_alone(family: Any, attention: str):
    """In float64 nearly to the bit (norms round to float32); in float32 within the rounding of a sample alone."""
    build, samples = family
    model, processor = build(attention)
    model = adapted(model, processor, "moka").train()
    packed, alone, places = packed_and_alone(model, processor, samples)
    with torch.no_grad():
        exact = [model.double()(**cast(batch, torch.float64)).logits[0] for batch in alone]
        in_row = model(**cast(packed, torch.float64)).logits
        rounded = [model.float()(**batch).logits[0] for batch in alone]
        rounded_row = model(**packed).logits
    rounding = max(float((a - b).abs().max()) for a, b in zip(rounded, exact, strict=True))
    for index, row, column in places:
        columns = slice(column, column + len(exact[index]))
        torch.testing.assert_close(in_row[row, columns], exact[index], rtol=0, atol=1e-7)
        torch.testing.assert_close(rounded_row[row, columns], rounded[index], rtol=0, atol=3 * rounding)


@pytest.mark.parametrize("method", ["moka", "lora"])
@pytest.mark.parametrize("checkpointing", [False, True], ids=["plain", "checkpointing"])
def test_loss_and_gradients_are_those_of_the_padded_batch(family: Any, method: str, checkpointing: bool):
    build, samples = family
    model, processor = build("sdpa")
    if checkpointing:
        enable_checkpointing(model)
    model = adapted(model, processor, method).double().train()
    packed, _, _ = packed_and_alone(model, processor, samples)
    found = []
    for batch in (packed, Collator(processor)(samples)):
        model.zero_grad()
        loss = model(**cast(batch, torch.float64)).loss
        loss.backward()
        found.append((loss.detach(), {n: p.grad for n, p in model.named_parameters() if p.requires_grad}))
    (loss, gradients), (expected_loss, expected) = found
    used = [gradient is not None and bool(gradient.any()) for gradient in expected.values()]
    assert sum(used) > 0.8 * len(used)  # media reach no loss through most matrices of the last layer
    torch.testing.assert_close(loss, expected_loss, rtol=1e-6, atol=0)
    scale = max(gradient.abs().max() for gradient in expected.values())
    for name, gradient in gradients.items():  # largest difference found: 1e-7 of the largest gradient
        torch.testing.assert_close(gradient, expected[name], rtol=0, atol=1e-6 * float(scale))


def test_broken_positions_and_a_cache_show(family: Any):
    """The comparisons above can fail: with positions that run on, and with a cache, samples see one another."""
    build, samples = family
    model, processor = build("sdpa")
    model.train()
    packed, alone, places = packed_and_alone(model, processor, samples)
    running = torch.arange(packed["input_ids"].shape[1]).expand_as(packed["position_ids"])
    index, row, column = next(place for place in places if place[2] > 0)
    with torch.no_grad():
        expected = model(**alone[index]).logits[0]
        for broken in ({"position_ids": running}, {"use_cache": True}):
            logits = model(**{**packed, **broken}).logits[row, column : column + len(expected)]
            assert (logits - expected).abs().max() > 0.01


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


def test_turns_of_a_spec_without_an_open_stay_apart():
    """Where the sample itself opens the first turn, a row that is read as one sample would lose every other's."""
    model, processor = llava("sdpa")
    samples = mixed(("image",))
    spec = replace(RoutingSpec.from_pretrained(model.config, processor), user_open=())
    model = adapted(model, processor, "moka", spec).double().eval()
    packed, alone, places = packed_and_alone(model, processor, samples)
    with torch.no_grad():
        logits = model(**cast(packed, torch.float64)).logits
        for index, row, column in places:
            expected = model(**cast(alone[index], torch.float64)).logits[0]
            torch.testing.assert_close(logits[row, column : column + len(expected)], expected, rtol=0, atol=1e-7)


def test_trainer_takes_packed_batches(tmp_path: Any):
    """Two steps of transformers' Trainer: losses as with padded batches."""
    samples, losses = mixed(("image",))[:4], []
    for packing in (True, False):
        model, processor = llava("sdpa")
        model = adapted(model, processor, "moka")
        config = model.config if packing else None
        arguments = transformers.TrainingArguments(
            str(tmp_path),
            per_device_train_batch_size=2,
            max_steps=2,
            logging_steps=1,
            learning_rate=1e-3,
            report_to="none",
            use_cpu=True,
            remove_unused_columns=False,
            dataloader_pin_memory=False,
            train_sampling_strategy="sequential",
        )
        trainer = transformers.Trainer(
            model, arguments, Collator(processor, packing=packing, model_config=config), train_dataset=samples
        )
        trainer.train()
        losses.append([entry["loss"] for entry in trainer.state.log_history if "loss" in entry])
    assert len(losses[0]) == 2 and losses[0] == pytest.approx(losses[1], rel=1e-5)
