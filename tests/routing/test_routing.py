"""What a Routing tells of itself without being read again."""

from __future__ import annotations

import pytest
import torch

from moka_peft import Routing


def test_on_the_cpu_the_host_has_the_tensors_themselves():
    modality, turn = torch.tensor([[-1, 0, 1]]), torch.tensor([[0, 1, 1]])
    assert all(a is b for a, b in zip(Routing(modality, turn).on_host(), (modality, turn), strict=True))


@pytest.mark.gpu
def test_the_host_copies_once():
    modality, turn = torch.tensor([[-1, 0, 1]]), torch.tensor([[0, 1, 1]])
    routing = Routing(modality.cuda(), turn.cuda())
    with torch.inference_mode():
        host = routing.on_host()
    assert routing.on_host() is host and not host[0].is_inference()
    assert torch.equal(host[0], modality) and torch.equal(host[1], turn)
