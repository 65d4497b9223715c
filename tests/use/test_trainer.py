"""transformers' Trainer with an adapted multimodal model: its conveniences change nothing that they must not."""

from __future__ import annotations

from dataclasses import fields

import pytest
import torch
from peft import PeftModel, get_peft_model
from transformers import Trainer, TrainingArguments, set_seed

from moka_peft import RoutingSpec, route

from .conftest import ANSWERS, QUESTION, grey, labels_after_question

CHECKPOINTING = next(
    f.name for f in fields(TrainingArguments) if f.name in ("activation_checkpointing", "gradient_checkpointing")
)
ROWS = [{"answer": answer, "level": 120 * index} for index, answer in enumerate(ANSWERS)] * 4


@pytest.fixture
def collate(processor):
    """Loss after the question; a row without a level has no image."""

    def build(rows):
        chats = []
        for row in rows:
            image = [] if row["level"] is None else [{"type": "image", "image": grey(row["level"])}]
            said = [{"type": "text", "text": row["answer"]}]
            asked = [*image, {"type": "text", "text": QUESTION}]
            chats.append([{"role": "user", "content": asked}, {"role": "assistant", "content": said}])
        batch = processor.apply_chat_template(
            chats,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            processor_kwargs={"padding": True, "padding_side": "right"},
        )
        return {**batch, "labels": labels_after_question(batch)}

    return build


@pytest.fixture
def trainer_on(llava, moka, collate, tmp_path):
    """trainer_on(out, **TrainingArguments) -> a Trainer on a fresh model, with the same first weights every time."""

    def build(out="out", config=None, rows=ROWS, trainer=None, **arguments):
        set_seed(0)
        model = get_peft_model(llava(), moka(**(config or {})))
        defaults = dict(max_steps=4, per_device_train_batch_size=4, learning_rate=1e-2, lr_scheduler_type="constant")
        quiet = dict(logging_steps=1, report_to="none", disable_tqdm=True, use_cpu=True, save_strategy="no")
        settings = {**quiet, **defaults, "remove_unused_columns": False, **arguments}
        return Trainer(
            model,
            TrainingArguments(str(tmp_path / out), **settings),
            data_collator=collate,
            train_dataset=rows,
            eval_dataset=ROWS[:6],
            **(trainer or {}),
        )

    return build


def adapter_of(trainer):
    return {name: value.detach().clone() for name, value in trainer.model.named_parameters() if value.requires_grad}


def trained(trainer):
    trainer.train()
    return adapter_of(trainer)


def assert_same(got, expected):
    for name, value in expected.items():
        torch.testing.assert_close(got[name], value, rtol=1e-4, atol=1e-5)


def test_checkpointing_changes_no_step(trainer_on):
    plain, start = trainer_on(), adapter_of(trainer_on())
    expected = trained(plain)
    assert not any(torch.equal(expected[name], start[name]) for name in expected if "moka_B" in name)
    for reentrant in (True, False):
        options = {CHECKPOINTING: True, f"{CHECKPOINTING}_kwargs": {"use_reentrant": reentrant}}
        assert_same(trained(trainer_on(**options)), expected)


def test_accumulated_steps_equal_larger_batches(trainer_on):
    """Also with rows of other lengths, and with rows without images in one half of the batch."""
    rows = [*ROWS, *({"answer": answer, "level": None} for answer in ANSWERS), ROWS[0]]
    expected = trained(trainer_on(rows=rows))
    halves = trainer_on(rows=rows, per_device_train_batch_size=2, gradient_accumulation_steps=2)
    assert_same(trained(halves), expected)
    pairs = trainer_on(rows=rows, per_device_train_batch_size=2, gradient_accumulation_steps=2, **{CHECKPOINTING: True})
    assert_same(trained(pairs), expected)


def test_resumed_run_equals_one_run(trainer_on, tmp_path):
    expected = trained(trainer_on(max_steps=6))
    trainer_on("cut", max_steps=6, save_strategy="steps", save_steps=3).train()
    resumed = trainer_on("cut", max_steps=6)
    resumed.train(resume_from_checkpoint=str(tmp_path / "cut" / "checkpoint-3"))
    assert resumed.state.global_step == 6
    for name, value in expected.items():
        assert torch.equal(adapter_of(resumed)[name], value), name


def test_best_model_is_loaded_at_the_end(trainer_on, llava, tmp_path):
    settings = dict(max_steps=6, eval_strategy="steps", eval_steps=2, save_strategy="steps", save_steps=2)
    # The highest loss counts as best, because training on these rows does not get worse.
    trainer = trainer_on(**settings, load_best_model_at_end=True, metric_for_best_model="loss", greater_is_better=True)
    trainer.train()
    scores = {row["step"]: row["eval_loss"] for row in trainer.state.log_history if "eval_loss" in row}
    best = max(scores, key=scores.get)
    assert best != 6 and trainer.evaluate()["eval_loss"] == pytest.approx(scores[best], rel=1e-5)
    loaded = PeftModel.from_pretrained(llava(), tmp_path / "out" / f"checkpoint-{best}")
    for name, value in loaded.state_dict().items():
        assert torch.equal(trainer.model.state_dict()[name], value), name


def test_evaluation_equals_a_forward(trainer_on, collate):
    trainer = trainer_on(config={"init_lora_weights": False}, per_device_eval_batch_size=3)
    predicted = trainer.predict(ROWS[:6], ignore_keys=["past_key_values", "image_hidden_states"])
    batch = collate(ROWS[:6])
    with torch.no_grad():
        output = trainer.model.eval()(**batch)
    real = batch["attention_mask"].bool()
    torch.testing.assert_close(torch.tensor(predicted.predictions)[real], output.logits[real])
    assert predicted.metrics["test_loss"] == pytest.approx(float(output.loss), rel=1e-5)


def test_loss_of_ones_own_is_seen(trainer_on):
    """The Trainer keeps the labels from the model where it has a loss function: its gradient tells."""

    def whole_sequence(outputs, labels, num_items_in_batch=None):
        logits, targets = outputs.logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten()
        return torch.nn.functional.cross_entropy(logits, targets)

    trainer = trainer_on(trainer={"compute_loss_func": whole_sequence})
    trainer.train()
    with_instruction = trainer_on(trainer={"compute_loss_func": whole_sequence})
    with_instruction.data_collator = all_supervised(with_instruction.data_collator)
    with pytest.raises(ValueError, match="instruction tokens carry loss.*computed outside the model"):
        with_instruction.train()


def all_supervised(collate):
    def build(rows):
        batch = collate(rows)
        return {**batch, "labels": batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)}

    return build


def test_collators_routing_reaches_the_hook(trainer_on, collate, processor):
    expected = trained(trainer_on())
    trainer = trainer_on()
    spec = RoutingSpec.from_pretrained(trainer.model.config, processor)

    def routed(rows):
        batch = collate(rows)
        routing = route(batch["input_ids"], spec, batch["attention_mask"])
        return {**batch, "moka_modality": routing.modality, "moka_turn": routing.turn}

    trainer.data_collator = routed
    got = trained(trainer)
    assert trainer.model.peft_config["default"].routing is None
    assert_same(got, expected)
