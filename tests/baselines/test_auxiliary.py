"""The gradient of a loss that rides on an output."""

import torch

from moka_peft.baselines.auxiliary import with_loss


def test_gradients_are_those_of_the_sum():
    x = torch.randn(3, dtype=torch.float64, requires_grad=True)
    expected = torch.autograd.grad((x**3).sum() * 2 + (x**2).sum(), x)[0]
    y = with_loss(x**3, (x**2).sum())
    assert torch.equal(y, x**3)
    got = torch.autograd.grad(y.sum() * 2, x)[0]
    torch.testing.assert_close(got, expected, rtol=1e-14, atol=0)
