"""Non-text dominance of a made-up gradient, and of adapted models."""

import json

import pytest
import torch

from moka_peft.analysis.dominance import draw_dominance, measure_dominance
from moka_peft.analysis.information import Sums, describe_matrix, is_shared, overall_dominance, overall_shares, shares

from .answering import answering

EVERY = ("text", "visual", "audio")


def test_information_of_two_samples():
    """Non-text is taken together: where visual and audio cancel, it has no information."""
    first = torch.tensor([[[2.0, 1.0, 0.0, 1.0]], [[1.0, 3.0, 1.0, 1.0]], [[0.0, 0.0, -1.0, 1.0]]])
    second = torch.tensor([[[0.0, 1.0, 0.0, 1.0]], [[1.0, 3.0, 1.0, 0.0]], [[0.0, 0.0, -1.0, 0.0]]])
    sums = Sums(first)
    sums.add(first)
    sums.add(second)
    told = describe_matrix("lora_A", sums, EVERY, 2)
    assert torch.equal(sums.squares[-1], torch.tensor([[2.0, 18.0, 0.0, 4.0]], dtype=torch.float64))
    assert told["non_text_dominant"] == 2 and told["elements"] == 4 and told["dominance"] == 0.5  # 18 > 2 and 4 > 2
    assert told["fisher"] == {"text": 4.0, "visual": 11.5, "audio": 1.5}
    assert told["fisher_share"]["text"] == pytest.approx(4 / 17)
    assert told["gradient_norm"]["audio"] == pytest.approx((2**0.5 + 1) / 2)
    assert told["gradient_norm"]["text"] == pytest.approx((6**0.5 + 2**0.5) / 2)


def test_shared_matrices():
    shared = ["lora_A", "lora_magnitude_vector", "moka_B", "moka_A_0", "moka_A_mm", "moka_router"]
    own = ["moka_A_text", "moka_A_visual", "moka_B_audio"]
    assert [name for name in shared + own if is_shared(name, EVERY)] == shared


def test_overall_weighs_by_elements():
    def matrix(shared, dominant, elements):
        return {"shared": shared, "non_text_dominant": dominant, "elements": elements}

    layers = [
        {
            "matrices": {
                "moka_B": matrix(True, 1, 10),
                "moka_A_text": matrix(False, 5, 10),
                "moka_A_0": matrix(True, 1, 2),
            }
        },
        {"matrices": {"moka_B": matrix(True, 29, 30), "moka_A_text": matrix(False, 5, 10)}},
    ]
    assert overall_dominance(layers) == {"moka_B": 30 / 40, "moka_A": 1 / 2}


def test_overall_shares_are_of_the_sums():
    layers = [{"matrices": {"lora_A": {"fisher": {"text": text, "visual": 1.0}}}} for text in (1.0, 5.0)]
    assert overall_shares(layers) == {"lora_A": {"text": 0.75, "visual": 0.25}}


def test_shares_of_nothing():
    assert shares({"text": 0.0, "audio": 0.0}) == {"text": 0.0, "audio": 0.0}


@pytest.mark.parametrize("method, matrices", [("lora", ["lora_A", "lora_B"]), ("moka", ["moka_B"])])
def test_measured(method, matrices, tmp_path):
    model, processor, samples = answering(method, size=3, lora_dropout=0.5)
    model.train()
    result = measure_dominance(model, processor, samples, batch_size=2)
    assert model.training
    assert list(result["dominance"]) == matrices
    assert all(0 < share < 1 for share in result["dominance"].values())
    assert len(result["layers"]) == result["adapter"]["layers"] == 28
    assert result["tokens"]["text"] > 10 and result["tokens"]["visual"] > 0
    assert sum(result["fisher_share"][matrices[0]].values()) == pytest.approx(1)
    once_more = measure_dominance(model, processor, samples, batch_size=3)  # without dropout, in other batches
    assert once_more["dominance"] == pytest.approx(result["dominance"], abs=2e-3)
    draw_dominance(json.loads(json.dumps(result)), tmp_path / "dominance.png")
    assert (tmp_path / "dominance.png").stat().st_size > 10_000


def test_a_picture_where_nothing_is_shared(tmp_path):
    matrix = {"shared": False, "non_text_dominant": 1, "elements": 2, "fisher": dict.fromkeys(EVERY, 1.0)}
    layers = [{"layer": "layers.0.q_proj", "matrices": {"moka_A_text": matrix, "moka_B_text": matrix}}]
    result = {"dominance": {}, "layers": layers, "modalities": list(EVERY), "samples": 1}
    draw_dominance(result, tmp_path / "dominance.png")
    assert (tmp_path / "dominance.png").stat().st_size > 5_000


def test_refused():
    model, processor, samples = answering("lora", size=1)
    with pytest.raises(ValueError, match="`samples`: expected at least one"):
        measure_dominance(model, processor, [])
    model.merge_adapter()
    with pytest.raises(ValueError, match="merged into"):
        measure_dominance(model, processor, samples)
