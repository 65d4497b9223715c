"""The bytes of optimizers' states against those of the optimizers themselves."""

import pytest
import torch
from transformers.training_args import OptimizerNames

from moka_peft.training.plan.optimizer import OTHERS, optimizer_bytes


@pytest.mark.parametrize("name", [None, "adamw_torch", "adamw_8bit", "sgd", "lion_32bit", "paged_adamw_8bit"])
def test_optimizer_states_are_as_large_as_counted(name):
    large, small = torch.zeros(512, 512), torch.zeros(10)
    bytes_ = {None: 8, "adamw_torch": 8, "adamw_8bit": 2 * (1 + 4 / 256), "sgd": 0, "lion_32bit": 4}.get(name)
    expected = 2 * (1 + 4 / 256) if bytes_ is None else bytes_
    assert optimizer_bytes(large, name) == large.numel() * expected
    assert optimizer_bytes(small, name) == 10 * {"sgd": 0, "lion_32bit": 4}.get(name, 8)


def test_eight_bit_states_are_bitsandbytes_own():
    optimizers = pytest.importorskip("bitsandbytes").optim
    weight = torch.nn.Parameter(torch.zeros(512, 512))
    optimizer = optimizers.AdamW8bit([weight])
    optimizer.init_state(optimizer.param_groups[0], weight, 0, 0)
    state = optimizer.state[weight]
    real = sum(state[name].nbytes for name in ("state1", "state2", "absmax1", "absmax2"))
    assert optimizer_bytes(weight, "adamw_8bit") == real


@pytest.mark.parametrize("name", ["galore_adamw", "apollo_adamw", "adamw_torch_4bit", "schedule_free_sgd", "lomo"])
def test_other_states_are_refused(name):
    with pytest.raises(ValueError, match=f"`training.optimizer` {name} is none whose states"):
        optimizer_bytes(torch.zeros(2), name)


def test_every_optimizer_of_the_trainer_is_counted_or_refused_by_its_word():
    for name in [optimizer.value for optimizer in OptimizerNames]:
        if not any(word in name for word in OTHERS):
            assert optimizer_bytes(torch.zeros(2), name) >= 0
