"""TRL's SFTTrainer and our Trainer with our collator on the same images: the same losses."""

from __future__ import annotations

import numpy as np
import pytest
from datasets import Dataset
from peft import get_peft_model
from transformers import TrainingArguments, set_seed
from trl import SFTConfig, SFTTrainer

from moka_peft.data import Collator, Sample
from moka_peft.training.token_loss import TokenAveragedTrainer

from .conftest import messages
from .test_sft_trainer import CHECKPOINTING, QUIET, aligned, losses

SETTINGS = dict(max_steps=20, per_device_train_batch_size=2, gradient_accumulation_steps=2, learning_rate=5e-3)
ORDER = dict(train_sampling_strategy="sequential", lr_scheduler_type="linear", dataloader_pin_memory=False)


@pytest.fixture
def answered(chats):
    """Answers of one to three words."""
    said = ["black", "grey and black", "white grey"]
    return [{"images": row["images"], "messages": messages(said[index % 3])} for index, row in enumerate(chats)]


def as_sample(index: int, row: dict) -> Sample:
    asked, answer = row["messages"]
    parts = [{"type": "image", "image": row["images"][0]}, {"type": "text", "text": asked["content"]}]
    return Sample(id=str(index), messages=[{"role": "user", "content": parts}, answer])


@aligned
def test_sft_trainer_and_ours(llava, processor, moka, answered, tmp_path):
    quiet = {**QUIET, **SETTINGS, **ORDER, CHECKPOINTING: True}
    set_seed(0)
    theirs = SFTTrainer(
        model=llava(),
        args=SFTConfig(str(tmp_path / "theirs"), assistant_only_loss=True, **quiet),
        train_dataset=Dataset.from_list(answered),
        processing_class=processor,
        peft_config=moka(),
    )
    ours = TokenAveragedTrainer(
        get_peft_model(llava(), moka()),
        TrainingArguments(str(tmp_path / "ours"), remove_unused_columns=False, label_names=["labels"], **quiet),
        data_collator=Collator(processor),
        train_dataset=[as_sample(index, row) for index, row in enumerate(answered)],
    )
    ours.model.load_state_dict(theirs.model.state_dict())
    for trainer in (theirs, ours):
        set_seed(0)
        trainer.train()
    assert losses(ours)[-1] < 0.7 * losses(ours)[0]
    np.testing.assert_allclose(losses(ours), losses(theirs), rtol=1e-4)
