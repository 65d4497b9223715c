"""How IMoD deals out the elements of A."""

import pytest
import torch

from moka_peft.baselines.imod_parts import OTHER, SHARED, TEXT, draw_parts, shared_share_at


@pytest.mark.parametrize("share", [0.0, 1 / 3, 0.6, 1.0])
def test_every_element_is_of_one_kind_in_its_share(share):
    parts = draw_parts("layers.0.q_proj", 0, share, torch.Size((8, 100)))
    counts = [int((parts == part).sum()) for part in (TEXT, OTHER, SHARED)]
    assert counts[2] == round(800 * share)
    assert sum(counts) == 800
    assert counts[1] - counts[0] in (0, 1)


def test_kinds_are_mixed():
    parts = draw_parts("layers.0.q_proj", 0, 1 / 3, torch.Size((8, 300)))
    for part in (TEXT, OTHER, SHARED):
        assert ((parts == part).sum(1) - 100).abs().max() < 40  # five standard deviations
        assert ((parts == part).sum(0) > 0).float().mean() > 0.9


def test_draw_is_the_same_in_every_process():
    """As recorded in another one."""
    parts = draw_parts("layers.3.q_proj", 0, 1 / 3, torch.Size((2, 9)))
    assert parts.tolist() == [[0, 0, 2, 1, 1, 1, 0, 0, 1], [2, 0, 0, 2, 1, 1, 2, 2, 2]]


def test_layers_and_seeds_differ():
    shape = torch.Size((4, 30))
    first = draw_parts("layers.0.q_proj", 0, 1 / 3, shape)
    assert torch.equal(first, draw_parts("layers.0.q_proj", 0, 1 / 3, shape))
    assert not torch.equal(first, draw_parts("layers.1.q_proj", 0, 1 / 3, shape))
    assert not torch.equal(first, draw_parts("layers.0.q_proj", 1, 1 / 3, shape))


@pytest.mark.parametrize(
    ("name", "share"),
    [
        ("model.layers.0.mlp.up_proj", 0.2),
        ("model.layers.3.self_attn.q_proj", 0.5),
        ("model.layers.1.experts.7.up_proj", 0.3),
    ],
)
def test_share_grows_with_depth(name, share):
    names = {f"model.layers.{index}.mlp.up_proj" for index in range(4)} | {"model.layers.1.experts.7.up_proj"}
    assert shared_share_at(name, names, start=0.2, growth=0.4) == pytest.approx(share, abs=1e-12)


def test_depth_unknown():
    assert shared_share_at("proj", {"proj"}, start=0.2, growth=0) == 0.2
    with pytest.raises(ValueError, match="`shared_growth`: the depth of 'proj' is unknown.*Use shared_growth=0"):
        shared_share_at("proj", {"proj"}, start=0.2, growth=0.4)
