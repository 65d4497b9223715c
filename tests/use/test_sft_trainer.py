"""TRL's SFTTrainer with peft_config=MokaConfig(...) on images: every loss it knows, and what each lets through."""

from __future__ import annotations

from dataclasses import fields

import pytest
import torch
import transformers
from datasets import Dataset
from packaging.version import Version
from peft import PeftModel
from trl import SFTConfig, SFTTrainer

from moka_peft import route

from .conftest import ANSWERS, QUESTION, grey

OUT_OF_THE_INSTRUCTION = r"instruction tokens carry loss.*supervised_instruction='ignore'"
# TRL turns checkpointing on by the name that transformers 5.23 deprecates; by the new name it does not warn.
CHECKPOINTING = next(
    f.name for f in fields(SFTConfig) if f.name in ("activation_checkpointing", "gradient_checkpointing")
)
aligned = pytest.mark.skipif(
    Version(transformers.__version__) < Version("5.18"), reason="TRL refuses assistant-only loss on images before 5.18"
)
QUIET = dict(logging_steps=1, report_to="none", disable_tqdm=True, use_cpu=True, save_strategy="no", bf16=False)


@pytest.fixture
def sft(llava, processor, moka, chats, tmp_path):
    """sft(config overrides, dataset, **SFTConfig) -> a trainer on the tiny LLaVA."""

    def build(config=None, dataset=None, **arguments):
        others = {name: arguments.pop(name) for name in ("compute_loss_func", "eval_dataset") if name in arguments}
        defaults = dict(max_steps=2, per_device_train_batch_size=3, learning_rate=3e-2, lr_scheduler_type="constant")
        return SFTTrainer(
            model=llava(),
            args=SFTConfig(str(tmp_path / "out"), **{**QUIET, **defaults, CHECKPOINTING: True, **arguments}),
            train_dataset=chats if dataset is None else dataset,
            processing_class=processor,
            peft_config=moka(**(config or {})),
            **others,
        )

    return build


def losses(trainer):
    return [row["loss"] for row in trainer.state.log_history if "loss" in row]


def adapter_of(trainer):
    return {name: value.detach().clone() for name, value in trainer.model.named_parameters() if ".moka_" in name}


def test_default_loss_falls_on_the_instruction_and_raises(sft):
    with pytest.raises(ValueError, match=OUT_OF_THE_INSTRUCTION):
        sft().train()


@aligned
def test_assistant_only_loss_trains_the_adapter_and_nothing_else(sft, llava, batch, tmp_path):
    trainer = sft(assistant_only_loss=True, max_steps=12)
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    trainer.train()
    changed = {name for name, value in trainer.model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed and all(".moka_" in name for name in changed)
    assert losses(trainer)[-1] < 0.5 * losses(trainer)[0]
    trainer.save_model(tmp_path / "adapter")
    loaded = PeftModel.from_pretrained(llava(), tmp_path / "adapter").eval()
    inputs = batch(*ANSWERS)
    assert torch.equal(loaded(**inputs).logits, trainer.model.eval()(**inputs).logits)
    assert loaded.peft_config["default"].routing == trainer.model.peft_config["default"].routing is not None


def test_ignore_takes_the_instruction_out_of_the_default_loss(sft, chats):
    trainer = sft({"supervised_instruction": "ignore"}, max_steps=12)
    inputs = trainer.data_collator([chats[index] for index in range(3)])
    loss = trainer.compute_loss(trainer.model, dict(inputs))
    routing = route(inputs["input_ids"], trainer.model.peft_config["default"].routing, inputs["attention_mask"])
    assert int((routing.is_instruction & (inputs["labels"] != -100)).sum()) == 15  # five tokens in three rows
    inputs["labels"] = inputs["labels"].masked_fill(routing.is_instruction, -100)
    trainer.model.peft_config["default"].supervised_instruction = "raise"
    assert torch.equal(loss, trainer.compute_loss(trainer.model, inputs))
    trainer.model.peft_config["default"].supervised_instruction = "ignore"
    trainer.train()
    assert losses(trainer)[-1] < 0.5 * losses(trainer)[0]


@pytest.fixture
def completions():
    """`images` + `prompt` + `completion`: TRL puts the loss on the completion."""
    rows = [
        {
            "images": [grey(120 * index)],
            "prompt": [{"role": "user", "content": QUESTION}],
            "completion": [{"role": "assistant", "content": answer}],
        }
        for index, answer in enumerate(ANSWERS)
    ]
    return Dataset.from_list(rows * 4)


def test_prompt_and_completion_need_no_setting(sft, processor, completions):
    trainer = sft(dataset=completions, max_steps=12)
    labels = trainer.data_collator([completions[0]])["labels"]
    assert processor.decode(labels[0][labels[0] != -100]) == "black<|im_end|>\n"
    trainer.train()
    assert losses(trainer)[-1] < 0.5 * losses(trainer)[0]


@pytest.mark.parametrize(
    "arguments",
    [
        {"loss_type": "dft"},
        {"gradient_accumulation_steps": 2},
        {f"{CHECKPOINTING}_kwargs": {"use_reentrant": True}},
        {CHECKPOINTING: False},
    ],
    ids=lambda arguments: next(iter(arguments)),
)
def test_settings_of_trl_see_the_same_labels(sft, completions, arguments):
    with pytest.raises(ValueError, match=OUT_OF_THE_INSTRUCTION):
        sft(**arguments).train()
    trainer = sft(dataset=completions, **arguments)
    before = adapter_of(trainer)
    trainer.train()
    assert all(torch.isfinite(torch.tensor(losses(trainer)))) and not equal(adapter_of(trainer), before)


def equal(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


def cross_entropy(outputs, labels, num_items_in_batch=None):
    logits, targets = outputs.logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten()
    return torch.nn.functional.cross_entropy(logits, targets, reduction="sum") / num_items_in_batch


@pytest.mark.parametrize(
    "arguments",
    [{"label_smoothing_factor": 0.1}, {"compute_loss_func": cross_entropy}],
    ids=["label_smoothing", "loss_function"],
)
def test_loss_that_trl_computes_outside_the_model(sft, chats, arguments):
    """TRL runs a second forward for its metrics there, and only that one has the labels."""
    with pytest.warns(FutureWarning, match="is deprecated"), pytest.raises(ValueError, match=OUT_OF_THE_INSTRUCTION):
        sft(**arguments).train()
    with pytest.warns(FutureWarning, match="is deprecated"):
        trainer = sft({"supervised_instruction": "ignore", "init_lora_weights": False}, **arguments)
    inputs = trainer.data_collator([chats[index] for index in range(3)])
    trainer.model(**inputs)  # derives the spec
    routing = route(inputs["input_ids"], spec_of(trainer), inputs["attention_mask"])
    masked = inputs["labels"].masked_fill(routing.is_instruction, -100)
    assert not torch.equal(masked, inputs["labels"])
    found = [gradients(trainer, {**inputs, "labels": labels}) for labels in (inputs["labels"], masked)]
    for name, gradient in found[1].items():
        torch.testing.assert_close(found[0][name], gradient)


def spec_of(trainer):
    return trainer.model.peft_config["default"].routing


def gradients(trainer, inputs):
    trainer.model.train().zero_grad()
    trainer.compute_loss(trainer.model, inputs, num_items_in_batch=10).backward()
    return {name: value.grad.clone() for name, value in trainer.model.named_parameters() if ".moka_" in name}


@aligned
def test_rows_without_images_train_beside_rows_with(sft, processor, chats):
    bare = [{"images": [], "messages": chats[index]["messages"]} for index in range(3)]
    mixed = Dataset.from_list([chats[0], bare[0], chats[1], *bare, chats[2], bare[1], bare[2]])
    trainer = sft(dataset=mixed, assistant_only_loss=True, max_steps=3)
    before = adapter_of(trainer)
    trainer.train()
    assert not equal(adapter_of(trainer), before)
    inputs = trainer.data_collator([chats[0], *bare])
    answers = [processor.decode(row[row != -100]) for row in inputs["labels"]]
    assert answers == [f"{answer}<|im_end|>" for answer in ("black", *ANSWERS)]
    with pytest.raises(ValueError, match=r"^5 " + OUT_OF_THE_INSTRUCTION):  # the row with the image alone
        trainer.model(**{**inputs, "labels": inputs["input_ids"]})


def test_evaluation_reads_the_same_labels(sft, chats, completions):
    trainer = sft(dataset=completions, eval_dataset=completions)
    assert trainer.evaluate()["eval_loss"] > 0
    with pytest.raises(ValueError, match=OUT_OF_THE_INSTRUCTION):
        sft(eval_dataset=chats).evaluate()
