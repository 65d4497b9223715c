import random

import numpy as np
import pytest
import torch

from moka_peft.training.determinism import deterministic, seed_all


def test_the_settings_of_the_caller_come_back():
    threads = torch.get_num_threads()
    with pytest.raises(KeyError), deterministic(threads + 1):
        assert torch.get_num_threads() == threads + 1
        assert torch.are_deterministic_algorithms_enabled()
        raise KeyError
    assert torch.get_num_threads() == threads
    assert not torch.are_deterministic_algorithms_enabled()


def test_a_seed_starts_all_generators_anew():
    draws = []
    for _ in range(2):
        seed_all(2**40)
        draws.append((random.random(), np.random.rand(), torch.rand(1).item()))
    assert draws[0] == draws[1]
