import math

import pytest
import torch
from peft import LoraConfig, get_peft_model
from PIL import Image

from moka_peft import MokaConfig
from moka_peft.analysis.subspaces import draw_subspaces, measure_subspaces, principal_cosines, random_cosine
from moka_peft.baselines.multiple_lora import MultipleLoraConfig


def rows(*vectors: list[float]) -> torch.Tensor:
    return torch.tensor(vectors, dtype=torch.float64)


def test_the_cosines_are_those_of_known_angles():
    A = rows([2, 0, 0, 0], [1, 3, 0, 0])  # the plane of the first two axes
    a, b = math.cos(0.3), math.cos(1.1)
    other = rows([a, 0, math.sin(0.3), 0], [0, b, 0, math.sin(1.1)])
    assert principal_cosines(A, other).tolist() == pytest.approx([a, b])
    mixed = torch.tensor([[3.0, 1.0], [-2.0, 5.0]], dtype=torch.float64)
    assert principal_cosines(A, mixed @ other).tolist() == pytest.approx([a, b])  # the space, not its vectors


def test_equal_and_perpendicular_spaces():
    A = torch.randn(3, 20, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert principal_cosines(A, A.flip(0) * 7).tolist() == pytest.approx([1.0] * 3)
    assert principal_cosines(rows([1, 0, 0]), rows([0, 1, 0], [0, 0, 1])).tolist() == pytest.approx([0.0])


def test_rows_that_add_no_direction_do_not_count():
    assert principal_cosines(rows([1, 0, 0], [2, 0, 0]), rows([0, 1, 0], [0, 0, 0])).tolist() == pytest.approx([0.0])
    assert principal_cosines(rows([0, 0]), rows([1, 0])).numel() == 0


def test_the_random_level_of_lines_is_the_known_one():
    for size in (2, 16, 64):
        expected = math.gamma(size / 2) / (math.sqrt(math.pi) * math.gamma((size + 1) / 2))
        mean, deviation = random_cosine(size, 1, 1)
        assert abs(mean - expected) < 4 * deviation / math.sqrt(200)


def test_random_subspaces_are_at_the_random_level():
    generator = torch.Generator().manual_seed(1)
    mean, deviation = random_cosine(32, 4, 4)
    drawn = [
        principal_cosines(*torch.randn(2, 4, 32, generator=generator, dtype=torch.float64)).mean() for _ in range(100)
    ]
    assert abs(float(torch.stack(drawn).mean()) - mean) < 4 * deviation / 10
    assert float(torch.stack(drawn).std()) == pytest.approx(deviation, rel=0.3)


@pytest.fixture
def adapted(tiny_lm, spec):
    return get_peft_model(tiny_lm(), MokaConfig(r=3, routing=spec, modalities=("text", "visual", "audio")))


def test_every_layer_projection_and_pair_is_measured(adapted):
    layer = adapted.base_model.model.model.layers[1].mlp.up_proj
    with torch.no_grad():
        layer.moka_A_audio["default"].weight.copy_(layer.moka_A_text["default"].weight.flip(0))
    result = measure_subspaces(adapted)
    assert len(result["layers"]) == 2 * 7 * 3 and result["outputs"] == []
    equal = [each for each in result["layers"] if each["mean"] > 0.999]
    assert [(e["layer"], e["projection"], e["pair"]) for e in equal] == [(1, "mlp.up_proj", ["text", "audio"])]
    others = [each for each in result["layers"] if each not in equal]
    near = [abs(each["mean"] - each["random_mean"]) < 4 * each["random_deviation"] for each in others]
    assert all(near)
    assert {len(each["cosines"]) for each in others} == {3}


def test_the_picture_shows_what_stands_out(adapted, tmp_path):
    draw_subspaces(measure_subspaces(adapted), tmp_path / "random.png")
    for module in adapted.modules():
        if hasattr(module, "moka_A_text"):
            module.moka_A_audio["default"].weight.data.copy_(module.moka_A_text["default"].weight)
    draw_subspaces(measure_subspaces(adapted), tmp_path / "equal.png")
    pictures = [Image.open(tmp_path / name).convert("RGB") for name in ("random.png", "equal.png")]
    assert pictures[0].size == pictures[1].size and pictures[0].tobytes() != pictures[1].tobytes()


def test_adapters_whose_modalities_share_an_A_are_refused(tiny_lm, spec):
    shared = MultipleLoraConfig(r=2, routing=spec, modalities=("text", "visual"))
    for config in (LoraConfig(target_modules=["q_proj"]), shared):
        with pytest.raises(ValueError, match="no A of its own for each modality"):
            measure_subspaces(get_peft_model(tiny_lm(), config))
