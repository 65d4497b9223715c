"""Scoring forwards of preference training: the reference is the adapter switched off, and rows stay apart."""

from __future__ import annotations

import math
from dataclasses import fields

import pytest
import torch
from datasets import Dataset
from peft import PeftModel, get_peft_model
from trl import DPOConfig, DPOTrainer, GRPOConfig, GRPOTrainer

from .conftest import ANSWERS, QUESTION, grey, labels_after_question

CHECKPOINTING = next(
    f.name for f in fields(DPOConfig) if f.name in ("activation_checkpointing", "gradient_checkpointing")
)
# TRL switches checkpointing off and on around the reference by the names that transformers 5.23 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:`gradient_checkpointing_(en|dis)able` is deprecated:FutureWarning")
QUIET = dict(logging_steps=1, report_to="none", disable_tqdm=True, use_cpu=True, save_strategy="no", bf16=False)
STEPS = dict(max_steps=4, per_device_train_batch_size=3, learning_rate=1e-2, lr_scheduler_type="constant")


@pytest.fixture
def pairs():
    """The right answer against the next one."""
    rows = []
    for index, answer in enumerate(ANSWERS):
        wrong = ANSWERS[(index + 1) % len(ANSWERS)]
        said = {"chosen": answer, "rejected": wrong}
        rows.append(
            {
                "images": [grey(120 * index)],
                "prompt": [{"role": "user", "content": QUESTION}],
                **{name: [{"role": "assistant", "content": text}] for name, text in said.items()},
            }
        )
    return Dataset.from_list(rows * 4)


@pytest.fixture
def dpo(processor, pairs, tmp_path):
    """dpo(model, **DPOConfig) -> a trainer."""

    def build(model, peft_config=None, **arguments):
        settings = DPOConfig(str(tmp_path / "out"), **{**QUIET, **STEPS, CHECKPOINTING: True, **arguments})
        return DPOTrainer(
            model, args=settings, train_dataset=pairs, processing_class=processor, peft_config=peft_config
        )

    return build


def log_probs(model, inputs, mask):
    """[B] log-probability of the tokens in `mask`, from a forward without labels."""
    logits = model(**inputs).logits[:, :-1].log_softmax(-1)
    chosen = logits.gather(-1, inputs["input_ids"][:, 1:, None]).squeeze(-1)
    return (chosen * mask[:, 1:]).sum(1)


@pytest.mark.parametrize("arguments", [{}, {"loss_type": ["sigmoid", "sft"]}, {CHECKPOINTING: False}], ids=str)
def test_dpo_trains_against_the_disabled_adapter(dpo, llava, moka, arguments):
    trainer = dpo(llava(), moka(), **arguments)
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    trainer.train()
    losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    if "loss_type" not in arguments:
        assert losses[0] == pytest.approx(math.log(2), rel=1e-4)  # B starts at zero: policy and reference agree
    assert losses[-1] < losses[0]
    changed = {name for name, value in trainer.model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed and all(".moka_" in name for name in changed)


def test_reference_of_dpo_is_the_base_bit_for_bit(dpo, llava, moka, pairs):
    trainer = dpo(llava(), moka(init_lora_weights=False))
    inputs = trainer.data_collator([pairs[index] for index in range(3)])
    reference = torch.cat(trainer.compute_ref_log_probs(trainer.model, dict(inputs)))
    plain = dpo(llava())
    expected = torch.cat(plain.compute_ref_log_probs(plain.model, dict(inputs)))
    assert torch.equal(reference, expected)
    labels = inputs["input_ids"].masked_fill(inputs["completion_mask"] == 0, -100)
    model_inputs = {name: value for name, value in inputs.items() if name != "completion_mask"}
    policy = trainer.model(**model_inputs, labels=labels, fused_lm_head=True, use_cache=False).log_probs.sum(1)
    assert not torch.allclose(policy, reference)


def test_dpo_goes_on_from_an_adapter_against_a_frozen_copy(dpo, llava, moka, batch, tmp_path):
    start = get_peft_model(llava(), moka(init_lora_weights=False))
    start(**batch("black"))
    start.save_pretrained(tmp_path / "start")
    trainer = dpo(PeftModel.from_pretrained(llava(), tmp_path / "start", is_trainable=True))
    assert set(trainer.model.peft_config) == {"default", "ref"}
    frozen = {name: value.clone() for name, value in trainer.model.state_dict().items() if ".ref." in name}
    trainer.train()
    losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    assert losses[0] == pytest.approx(math.log(2), rel=1e-4) and losses[-1] < losses[0]
    assert frozen and all(torch.equal(trainer.model.state_dict()[name], value) for name, value in frozen.items())


def test_scoring_without_labels(llava, moka, batch):
    """Chosen and rejected rows in one batch score as each does alone; the disabled adapter scores as the base."""
    model = get_peft_model(llava(), moka(init_lora_weights=False)).eval()
    inputs = batch("black", "white", None, "grey")
    mask = labels_after_question(inputs) != -100
    together = log_probs(model, inputs, mask)
    image = 0
    for row in range(4):
        real = inputs["attention_mask"][row].bool()
        alone = {"input_ids": inputs["input_ids"][row : row + 1, real]}
        if row != 2:
            alone["pixel_values"], image = inputs["pixel_values"][image : image + 1], image + 1
        torch.testing.assert_close(together[row], log_probs(model, alone, mask[row : row + 1, real])[0])
    base = log_probs(llava(), inputs, mask)
    with model.disable_adapter():
        assert torch.equal(log_probs(model, inputs, mask), base)
    assert not torch.allclose(together, base)
    assert torch.equal(log_probs(model, inputs, mask), together)


def test_policy_and_reference_forwards_in_turn_give_the_same_gradient(llava, moka, batch):
    """The reference forward between a policy forward and its backward takes no routing away."""
    model = get_peft_model(llava(), moka(init_lora_weights=False)).train()
    getattr(model, f"{CHECKPOINTING}_enable")()
    model.enable_input_require_grads()
    inputs = batch("black", "white")
    mask = labels_after_question(inputs) != -100

    def gradients(between):
        model.zero_grad()
        score = log_probs(model, inputs, mask)
        between()
        score.sum().backward()
        return [p.grad.clone() for n, p in model.named_parameters() if ".moka_" in n]

    def reference():
        with torch.no_grad(), model.disable_adapter():
            log_probs(model, inputs, mask)

    for expected, got in zip(gradients(lambda: None), gradients(reference), strict=True):
        assert torch.equal(got, expected)


def test_grpo(llava, moka, processor, pairs, tmp_path):
    """Generates with the adapter, then scores what it generated, images included."""
    settings = GRPOConfig(
        str(tmp_path / "out"),
        num_generations=2,
        max_completion_length=4,
        **{**QUIET, **STEPS, "max_steps": 2, "per_device_train_batch_size": 2, CHECKPOINTING: True},
    )
    trainer = GRPOTrainer(
        llava(),
        reward_funcs=lambda completions, **_: [float(len(str(completion))) for completion in completions],
        args=settings,
        train_dataset=pairs.select_columns(["images", "prompt"]),
        processing_class=processor,
        peft_config=moka(),
    )
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    trainer.train()
    changed = {name for name, value in trainer.model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed and all(".moka_" in name for name in changed)
