"""Media of any name beside the three: how they are described, read, encoded, saved and refused."""

import numpy as np
import pytest
import torch
from transformers import Dinov2Config

from moka_peft.composite import (
    CompositeConfig,
    CompositeForConditionalGeneration,
    CompositeProcessor,
    build_composite,
    tiny_avt_processor,
)
from moka_peft.composite.encoders import build_encoder
from moka_peft.routing import RoutingSpec
from moka_peft.routing.placeholders import media_token_ids
from moka_peft.training.parts import find_parts

from .conftest import IMAGE_ID, LAYERS, PIXELS, VISION, composite_config, text_config

DEPTH_ID = 8
DEPTH = {"config": Dinov2Config(**LAYERS, **PIXELS), "projector": {"type": "linear"}, "token_id": DEPTH_ID}


def depth_composite(**changes) -> CompositeForConditionalGeneration:
    torch.manual_seed(0)
    return CompositeForConditionalGeneration(
        composite_config(VISION["clip"](), other_media={"depth": {**DEPTH, **changes}})
    ).eval()


def batch(images: int = 1, depths: int = 2, tokens: int = 5) -> dict[str, torch.Tensor]:
    ids = [1, *[DEPTH_ID] * tokens * depths, 9, *[IMAGE_ID] * 4 * images, 10]
    return {
        "input_ids": torch.tensor([ids]),
        "pixel_values": torch.randn(images, 3, 16, 16),
        "depth_values": torch.randn(depths, 3, 16, 16),
    }


def built():
    """A composite that sees images and depth, from objects; depth is [H, W] in metres, read by a function."""
    known = tiny_avt_processor()
    known.image_processor.size = {"height": 16, "width": 16}
    depth = {
        "encoder": build_encoder(DEPTH["config"]),
        "shape": (3, 16, 16),
        "reader": lambda d: np.stack([d] * 3) / 10,
    }
    return build_composite(
        CompositeForConditionalGeneration(CompositeConfig(text_config=text_config(vocab_size=467))).text_model,
        build_encoder(VISION["clip"]()),
        tokenizer=known.tokenizer,
        image_processor=known.image_processor,
        chat_template=known.chat_template,
        others={"depth": depth},
    )


def test_a_medium_has_an_encoder_a_projector_and_a_token():
    model = depth_composite()
    assert model.config.kinds == ["image", "video", "audio", "depth"]
    assert media_token_ids(model.config) == {"image": IMAGE_ID, "video": 6, "depth": DEPTH_ID}
    assert find_parts(model)["projectors"] == ["vision_projector", "depth_projector"]
    assert find_parts(model)["towers"] == ["vision_encoder", "depth_encoder"]
    assert DEPTH_ID in model.generation_config.suppress_tokens
    model.depth_encoder.requires_grad_(False)
    assert not model.train().depth_encoder.training


def test_its_embeddings_stand_at_its_tokens():
    model, inputs = depth_composite(), batch()
    logits = model(**inputs).logits
    changed = model(**{**inputs, "depth_values": inputs["depth_values"] + 1}).logits
    assert torch.equal(changed[:, :1], logits[:, :1]) and not torch.equal(changed[:, 1:2], logits[:, 1:2])
    embeds = model.embed_media("depth", inputs.pop("depth_values"))
    assert embeds.shape == (2, 5, 16)  # all tokens of a DINOv2 by default, its class token too
    assert torch.equal(model(**inputs, depth_embeds=embeds.flatten(0, 1)).logits, logits)


def test_chosen_layers_and_patches():
    model = depth_composite(feature_layers=[1, 2], feature_select="patch")
    assert model.depth_projector[0].in_features == 32
    assert model(**batch(tokens=4)).logits.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_and_config_come_back(tmp_path, dtype):
    model = depth_composite(feature_layers=[1])
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(std=0.1)
    model.save_pretrained(tmp_path)
    loaded, report = CompositeForConditionalGeneration.from_pretrained(tmp_path, dtype=dtype, output_loading_info=True)
    assert not any(report.values())
    assert {weight.dtype for weight in loaded.parameters()} == {dtype}
    assert all(torch.equal(a.to(dtype), b) for a, b in zip(model.parameters(), loaded.parameters(), strict=True))
    assert loaded.config.depth_token_id == DEPTH_ID and loaded.config.depth_config.model_type == "dinov2"
    assert loaded.config.depth_feature_layers == [1] and loaded.config.depth_feature_select == "all"
    again = CompositeConfig.from_dict(loaded.config.to_dict())
    assert again.to_dict() == loaded.config.to_dict()


@pytest.mark.parametrize("options", [{"num_beams": 3, "num_return_sequences": 2}, {"use_cache": False}])
def test_it_is_encoded_once_and_expanded_with_its_rows(options):
    model, calls = depth_composite(), []
    model.depth_encoder.register_forward_hook(lambda *_: calls.append(1))
    rows = torch.cat([batch(0, 1)["input_ids"]] * 2)
    depths = torch.randn(2, 3, 16, 16) * 3
    found = model.generate(input_ids=rows, depth_values=depths, max_new_tokens=3, do_sample=False, **options)
    assert len(calls) == 1
    times = options.get("num_return_sequences", 1)
    for row in range(2):
        alone = model.generate(
            input_ids=rows[:1], depth_values=depths[row : row + 1], max_new_tokens=3, do_sample=False, **options
        )
        assert torch.equal(found[row * times : (row + 1) * times], alone)


def test_a_built_composite_reads_it_from_text_and_conversations(tmp_path):
    model, processor = built()
    assert processor.other_media == {"depth": {"shape": [3, 16, 16], "tokens": 5}}
    metres, image = np.random.default_rng(0).random((16, 16)), np.zeros((16, 16, 3), dtype=np.uint8)
    inputs = processor(text="<depth> and <image>", depth=[metres], images=[image], return_tensors="pt")
    assert torch.equal(inputs["depth_values"], torch.from_numpy(np.stack([metres] * 3) / 10).float()[None])
    assert (inputs["input_ids"] == model.config.depth_token_id).sum() == 5
    assert model(**inputs).logits.isfinite().all()
    parts = [
        {"type": "depth", "depth": metres},
        {"type": "image", "image": image},
        {"type": "text", "text": "How far?"},
    ]
    chat = [{"role": "user", "content": parts}]
    assert processor.apply_chat_template(chat) == "<|user|><depth><image>How far?<|end|>"
    options = {"return_tensors": "pt"}
    templated = processor.apply_chat_template(chat, tokenize=True, return_dict=True, processor_kwargs=options)
    assert torch.equal(templated["depth_values"], inputs["depth_values"])
    assert "depth_values" in processor.model_input_names
    spec = RoutingSpec.from_pretrained(model, processor)
    assert list(spec.placeholders) == ["visual", "depth"]


def test_a_saved_processor_asks_for_its_reader(tmp_path):
    _, processor = built()
    metres = np.random.default_rng(0).random((16, 16))
    expected = processor(text="<depth>", depth=metres)["depth_values"]
    processor.save_pretrained(tmp_path)
    loaded = CompositeProcessor.from_pretrained(tmp_path)
    assert loaded.depth_token == "<depth>"
    with pytest.raises(ValueError, match=r"`depth` has lost its reader: .* Set it"):
        loaded(text="<depth>", depth=metres)
    loaded.readers["depth"] = processor.readers["depth"]
    assert torch.equal(loaded(text="<depth>", depth=metres)["depth_values"], expected)


def series_processor(**medium) -> CompositeProcessor:
    tokenizer = tiny_avt_processor().tokenizer
    tokenizer.add_tokens(["<series>"], special_tokens=True)
    return CompositeProcessor(tokenizer=tokenizer, other_media={"series": {"shape": [4, 1], **medium}})


def test_a_medium_of_several_pieces():
    processor = series_processor(tokens=2)
    pieces = np.arange(12).reshape(3, 4, 1)
    batch = processor(text=["<series> <series>", ""], series=[[pieces, torch.ones(4, 1)], []])
    assert batch["series_values"].shape == (4, 4, 1) and batch["series_values"].dtype == torch.float32
    token = processor.tokenizer.convert_tokens_to_ids("<series>")
    assert [ids.count(token) for ids in batch["input_ids"]] == [8, 0]


@pytest.mark.parametrize(
    ("series", "message"),
    [
        (
            np.zeros((5, 1)),
            r"`series` holds a medium of the wrong shape: expected \[4, 1\] or \[pieces, 4, 1\], got \[5, 1\]",
        ),
        (np.zeros((0, 4, 1)), "wrong shape"),
        (
            [np.zeros((4, 1))] * 2,
            "`series` do not fit row 0 of the text: expected 1, one for each <series> in it, got 2",
        ),
    ],
)
def test_series_that_do_not_fit_are_refused(series, message):
    with pytest.raises(ValueError, match=message):
        series_processor(tokens=2)(text="<series>", series=series)


def test_an_unfitted_medium_is_refused():
    with pytest.raises(ValueError, match=r"`other_media\['series'\]\['tokens'\]` is not set"):
        series_processor()(text="<series>", series=np.zeros((4, 1)))


@pytest.mark.parametrize(
    ("others", "message"),
    [
        ({"depth": {**DEPTH, "config": None}}, "no encoder for depth"),
        ({"depth": {**DEPTH, "token_id": None}}, "`depth_config` has no placeholder: expected `depth_token_id`"),
        ({"depth": {**DEPTH, "layers": [1]}}, r"unknown fields for depth: .* got \['layers'\]"),
        ({"depth": {**DEPTH, "feature_layers": [7]}}, "`depth_feature_layers` is wrong"),
        ({"depth": {**DEPTH, "projector": {"type": "spline"}}}, "`depth_projector` type is unknown"),
        ({"depth": {**DEPTH, "config": {"model_type": "mine"}}}, "`depth_config` names the unknown architecture mine"),
        ({"video": DEPTH}, "`video` cannot name another kind of media"),
        ({"my depth": DEPTH}, "`my depth` cannot name another kind"),
    ],
)
def test_descriptions_that_do_not_fit_are_refused(others, message):
    with pytest.raises(ValueError, match=message):
        composite_config(VISION["clip"](), other_media=others)


@pytest.mark.parametrize(
    ("section", "message"),
    [({"shape": (1,)}, r"lacks \['encoder'\]"), ({"encoder": "a", "shape": (1,), "layers": 1}, r"got \['layers'\]")],
)
def test_others_that_do_not_fit_are_refused(section, message):
    text, known = CompositeForConditionalGeneration(CompositeConfig(text_config=text_config())), tiny_avt_processor()
    with pytest.raises(ValueError, match=message):
        build_composite(text.text_model, tokenizer=known.tokenizer, others={"depth": section})


def test_media_of_a_name_that_is_not_there_are_refused():
    with pytest.raises(ValueError, match="composite has no depth input"):
        CompositeForConditionalGeneration(composite_config()).embed_media("depth", torch.zeros(1))
