"""The loss of a step against a mean over its answer tokens worked out by hand."""

import json
from pathlib import Path

import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import TrainingArguments

from moka_peft import route
from moka_peft.data import Collator, load_samples
from moka_peft.training import MokaTrainer, load_model, load_recipe, train
from moka_peft.training.model import add_adapter
from moka_peft.tuner.supervision import without_supervised_instruction


@pytest.fixture
def everything_has_loss(tiny_folder: Path):
    """A model that takes loss off the instruction that media read, and three batches with loss on all of it."""
    base, processor = load_model(str(tiny_folder))
    adapter = {"r": 2, "target_modules": None, "supervised_instruction": "ignore"}
    model = add_adapter(base, processor, "moka", **adapter)
    samples, collator = list(load_samples({"name": "av_digits", "split": "train", "size": 5})), Collator(processor)

    def collate(samples: list) -> dict:
        batch = collator(samples)
        return {**batch, "labels": batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)}

    return model, collate, samples


def test_a_step_counts_the_tokens_that_the_model_leaves_in_the_loss(everything_has_loss, tmp_path: Path):
    model, collate, samples = everything_has_loss
    losses, tokens = 0.0, 0
    for batch in (collate(samples[:2]), collate(samples[2:4]), collate(samples[4:])):
        routing = route(batch["input_ids"], model.peft_config["default"].routing, batch["attention_mask"])
        labels = without_supervised_instruction(batch["labels"], routing)[:, 1:]
        assert (labels != batch["labels"][:, 1:]).any()
        with torch.no_grad():
            logits = model(**{**batch, "labels": None}).logits[:, :-1]
        losses += float(cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum"))
        tokens += int((labels != -100).sum())
    arguments = TrainingArguments(
        str(tmp_path), max_steps=1, per_device_train_batch_size=2, gradient_accumulation_steps=3, use_cpu=True,
        remove_unused_columns=False, label_names=["labels"], report_to="none", disable_tqdm=True, save_strategy="no",
    )  # fmt: skip
    trainer = MokaTrainer(model=model, args=arguments, data_collator=collate, train_dataset=samples)
    assert trainer.train().training_loss == pytest.approx(losses / tokens, rel=1e-5)


def test_a_step_without_any_answer_has_no_loss(write_yaml, tmp_path: Path):
    rows = [{"messages": [{"role": "user", "content": "one"}, {"role": "assistant", "content": "1", "loss": False}]}]
    rows += [{"messages": [{"role": "user", "content": "two"}, {"role": "assistant", "content": "2"}]}]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = f"data={{train: {{path: {tmp_path / 'rows.jsonl'}}}}}"
    train(load_recipe(write_yaml(), [data, "training.batch_size=1", "training.steps=2"]))
    state = json.loads((tmp_path / "out/checkpoints/checkpoint-2/trainer_state.json").read_text())
    low, high = sorted(entry["loss"] for entry in state["log_history"] if "loss" in entry)
    assert low == 0.0 < high
