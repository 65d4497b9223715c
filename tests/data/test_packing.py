"""Packed rows against the samples alone: every logit, the loss and the gradients."""

from dataclasses import replace
from typing import Any

import pytest
import torch
import transformers
from peft import LoraConfig, get_peft_model

from moka_peft import MokaConfig, RoutingSpec
from moka_peft.data import Collator

from .conversations import mixed
from .packed_models import FAMILIES, cast, llava, packed_and_alone


@pytest.fixture(params=FAMILIES, ids=lambda build: build.__name__)
def family(request: Any) -> Any:
    """(builder, samples)"""
    return request.param, mixed(FAMILIES[request.param])


def adapted(model: Any, processor: Any, method: str, spec: RoutingSpec | None = None, **options: Any) -> Any:
    """With an adapter whose delta is as large as what it adds to."""
    targets = r".*(language_model|text_model)\.(model\.)?layers.*\.(q_proj|v_proj|down_proj)"
    if method == "lora":
        model = get_peft_model(model, LoraConfig(r=4, lora_dropout=0.0, target_modules=targets))
    else:
        spec = spec or RoutingSpec.from_pretrained(model.config, processor)
        model = get_peft_model(model, MokaConfig(r=4, lora_dropout=0.0, routing=spec, **options))
    generator = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_" in name or "moka_" in name:
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.2
    return model


def enable_checkpointing(model: Any) -> None:
    """Under the name that this transformers has for it."""
    newest = getattr(model, "activation_checkpointing_enable", None)
    (newest or model.gradient_checkpointing_enable)({"use_reentrant": False})


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


@pytest.mark.parametrize("interaction", ["cross_attention", "text_query", "mean"])
def test_turns_of_a_spec_without_an_open_stay_apart(interaction: str):
    """Where the sample itself opens the first turn, a row that is read as one sample would lose every other's."""
    model, processor = llava("sdpa")
    samples = mixed(("image",))
    spec = replace(RoutingSpec.from_pretrained(model.config, processor), user_open=())
    model = adapted(model, processor, "moka", spec, interaction=interaction).double().eval()
    packed, alone, places = packed_and_alone(model, processor, samples)
    with torch.no_grad():
        logits = model(**cast(packed, torch.float64)).logits
        for index, row, column in places:
            expected = model(**cast(alone[index], torch.float64)).logits[0]
            torch.testing.assert_close(logits[row, column : column + len(expected)], expected, rtol=0, atol=1e-7)


def test_loss_on_an_instruction_of_a_packed_row_is_refused():
    model, processor = llava("sdpa")
    model = adapted(model, processor, "moka").train()
    packed, _, _ = packed_and_alone(model, processor, mixed(("image",)))
    with pytest.raises(ValueError, match="instruction"):
        model(**{**packed, "labels": packed["input_ids"]})


def test_trainer_takes_packed_batches(tmp_path: Any):
    """Twenty steps of transformers' Trainer: the losses of padded batches."""
    samples, losses = mixed(("image",))[:4] * 3, []
    for packing in (True, False):
        model, processor = llava("sdpa")
        model = adapted(model, processor, "moka")
        config = model.config if packing else None
        arguments = transformers.TrainingArguments(
            str(tmp_path),
            per_device_train_batch_size=2,
            max_steps=20,
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
    assert len(losses[0]) == 20 and losses[0][-1] < losses[0][0]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
