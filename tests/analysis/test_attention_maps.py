import base64
import io

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from PIL import Image

from moka_peft import MokaConfig, RoutingSpec
from moka_peft.analysis.attention_maps import draw_attention, measure_attention
from moka_peft.analysis.rank_attention import capture_attention
from moka_peft.composite import CompositeForConditionalGeneration, tiny_avt_config, tiny_avt_processor
from moka_peft.data import AvDigits, Collator, Sample


@pytest.fixture(scope="module")
def processor():
    return tiny_avt_processor()


@pytest.fixture
def adapted(processor):
    """adapted(...) -> an untrained audio-visual-text model with a MokA adapter whose B are not zero."""

    def build(**options):
        torch.manual_seed(0)
        model = CompositeForConditionalGeneration(tiny_avt_config()).eval()
        spec = RoutingSpec.from_pretrained(model, processor)
        return get_peft_model(model, MokaConfig(r=4, routing=spec, init_lora_weights=False, **options))

    return build


@pytest.fixture(scope="module")
def sample() -> Sample:
    return AvDigits("test", 9)[2]


def asked(text: str, like: Sample, turns: int = 1) -> Sample:
    """A conversation with one image in each turn."""
    part = like.media("image")[0]
    turn = [
        {"role": "user", "content": [part, {"type": "text", "text": text}]},
        {"role": "assistant", "content": "one"},
    ]
    return Sample("asked", turn * turns)


def test_one_forward_as_words_and_numbers(adapted, processor, sample):
    result = measure_attention(adapted(), processor, sample)
    text = "".join(part["text"] for part in sample.messages[0]["content"] if part["type"] == "text")
    assert "".join(word["text"] for word in result["words"]) == text.replace(" ", "")
    assert [token["modality"] for token in result["media"]] == ["visual"] * 16 + ["audio"] * 25
    assert len(result["layers"]) == 4 * 7 and result["interaction"] == "cross_attention"
    assert sum(result["even"]) == pytest.approx(1)
    for each in result["layers"]:
        weights = np.array(each["weights"])
        assert weights.shape == (41, len(result["words"]))
        assert weights.sum(1) == pytest.approx(np.ones(41), abs=1e-3)
        assert each["on_zero_keys"] == {"visual": 0, "audio": 0}
    assert 0 < min(each["entropy"]["visual"] for each in result["layers"]) < 0.999


def test_a_words_weight_is_the_sum_over_its_tokens(adapted, processor, sample):
    model, spelled = adapted(), asked("What follows xyz?", sample)
    result = measure_attention(model, processor, spelled)
    assert [word["text"] for word in result["words"]] == ["What", "follows", "xyz", "?"]
    counts = [word["tokens"] for word in result["words"]]
    assert counts[1] > 1 and result["even"] == pytest.approx(np.array(counts) / sum(counts))
    batch = Collator(processor).collate_prompts([spelled])
    captured = capture_attention(model, batch)
    for each in result["layers"]:
        tokens = captured.layers[each["name"]].weights
        ends = np.cumsum(counts)
        summed = [tokens[:, end - count : end].sum(1).tolist() for end, count in zip(ends, counts, strict=True)]
        assert np.array(each["weights"]).T == pytest.approx(np.array(summed), abs=1e-5)


def test_the_entropy_is_that_of_the_tokens(adapted, processor, sample):
    model = adapted()
    result = measure_attention(model, processor, asked("Is it?", sample))
    weights = torch.tensor(result["layers"][5]["weights"], dtype=torch.float64)  # three words of one token
    expected = torch.distributions.Categorical(weights).entropy().mean() / np.log(3)
    assert result["layers"][5]["entropy"]["visual"] == pytest.approx(float(expected), abs=1e-3)


def test_the_answer_changes_nothing(adapted, processor, sample):
    model = adapted()
    alone, answered = (measure_attention(model, processor, sample, with_answer=flag) for flag in (False, True))
    assert answered.pop("with_answer") and not alone.pop("with_answer")
    for one, other in zip(alone.pop("layers"), answered.pop("layers"), strict=True):
        assert np.array(one["weights"]) == pytest.approx(np.array(other["weights"]), abs=2e-5)
    assert alone == answered


def test_the_mean_is_even(adapted, processor, sample):
    result = measure_attention(adapted(interaction="mean"), processor, sample)
    for each in result["layers"]:
        assert each["entropy"] == {"visual": 1, "audio": 1}
        assert np.array(each["weights"]) == pytest.approx(np.array([result["even"]] * 41), abs=1e-5)


def test_words_that_attend_to_media(adapted, processor, sample):
    result = measure_attention(adapted(interaction="text_query"), processor, sample)
    assert result["even"] == pytest.approx([1 / 16] * 16 + [1 / 25] * 25)
    for each in result["layers"]:
        weights = np.array(each["weights"])
        assert weights[:16].sum(0) == pytest.approx(np.ones(len(result["words"])), abs=1e-3)
        assert weights[16:].sum(0) == pytest.approx(np.ones(len(result["words"])), abs=1e-3)


def test_what_falls_between_two_parts_of_an_instruction(adapted, processor, sample):
    image = sample.media("image")[0]
    parts = [{"type": "text", "text": "What is"}, image, {"type": "text", "text": " it?"}]
    split = Sample("split", [{"role": "user", "content": parts}, {"role": "assistant", "content": "one"}])
    result = measure_attention(adapted(instruction_span="contiguous"), processor, split)
    assert sum(result["even"]) == pytest.approx(4 / 20)  # 16 patches lie between the words
    for each in result["layers"]:
        share = each["on_zero_keys"]["visual"]
        assert 0 < share < 1
        assert np.array(each["weights"]).sum(1).mean() == pytest.approx(1 - share, abs=1e-3)


def test_patches_lie_where_the_encoder_cut_them(adapted, processor, sample):
    [image] = measure_attention(adapted(), processor, sample)["images"]
    assert (image["first"], image["grid"]) == (0, [2, 8])
    shown = Image.open(io.BytesIO(base64.b64decode(image["png"])))
    assert shown.size == (128, 32)


def test_an_image_of_another_shape_has_no_map(adapted, processor, sample):
    square = Sample("square", [{"role": "user", "content": [{"type": "image", "image": Image.new("RGB", (64, 64))},
                    {"type": "text", "text": "Is it?"}]}, {"role": "assistant", "content": "no"}])  # fmt: skip
    assert measure_attention(adapted(), processor, square)["images"] == []


def test_adapters_and_samples_without_attention_are_refused(adapted, processor, sample):
    model = CompositeForConditionalGeneration(tiny_avt_config())
    lora = get_peft_model(model, LoraConfig(target_modules=["up_proj"]))
    for other in (lora, adapted(interaction="none")):
        with pytest.raises(ValueError, match="has no attention between media and instruction"):
            measure_attention(other, processor, sample)
    told = [{"role": "user", "content": "Is it?"}, {"role": "assistant", "content": "no"}]
    with pytest.raises(ValueError, match="sample `told` has no media with an instruction"):
        measure_attention(adapted(), processor, Sample("told", told))


@pytest.mark.parametrize("interaction", ["cross_attention", "text_query", "mean"])
def test_the_picture(adapted, processor, sample, interaction, tmp_path):
    result = measure_attention(adapted(interaction=interaction), processor, sample)
    draw_attention(result, tmp_path / "attention.png")
    with Image.open(tmp_path / "attention.png") as picture:
        assert min(picture.size) > 600 and len(picture.convert("RGB").getcolors(10**6)) > 100


def test_the_picture_of_several_turns_and_many_words(adapted, processor, sample, tmp_path):
    result = measure_attention(adapted(), processor, asked("Which digit is $x^2$ " * 12 + "数字", sample, turns=2))
    draw_attention(result, tmp_path / "attention.png", layer=3)
    with pytest.raises(ValueError, match=r"`layer` has no adapter: expected one of \[0, 1, 2, 3\], got 4"):
        draw_attention(result, tmp_path / "attention.png", layer=4)
