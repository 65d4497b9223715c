"""The composite's forward: where media go, what they reach, and what it refuses."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from moka_peft.composite import CompositeForConditionalGeneration

from .conftest import AUDIO, AUDIO_ID, IMAGE_ID, VISION, composite_config

EXACT = {"rtol": 1e-10, "atol": 1e-12}  # float64


def test_a_medium_changes_its_own_positions_and_later_ones(composite, inputs):
    batch = inputs("tti" + "ttattt")
    logits = composite(**batch).logits
    for name, first in {"pixel_values": 3, "input_features": 9}.items():
        changed = composite(**{**batch, name: batch[name] + 1}).logits
        torch.testing.assert_close(changed[:, :first], logits[:, :first], **EXACT)
        assert ((changed - logits).abs().amax(-1)[:, first:] > 1e-4).all()


def test_a_video_is_its_frames_as_images(composite, inputs):
    video = inputs("tvt")
    images = {name: value for name, value in video.items() if name != "pixel_values_videos"}
    images["input_ids"] = video["input_ids"].where(video["input_ids"] != 6, IMAGE_ID)
    frames = video["pixel_values_videos"]
    as_images = composite(**images, pixel_values=frames).logits
    torch.testing.assert_close(composite(**video).logits, as_images, **EXACT)
    five_dimensional = {**video, "pixel_values_videos": frames[None]}
    torch.testing.assert_close(composite(**five_dimensional).logits, as_images, **EXACT)


@pytest.mark.parametrize(("name", "shape"), [("image", (3, 16, 16)), ("audio", (8, 10))])
def test_each_item_is_encoded_by_itself(composite, name, shape):
    media = torch.randn(3, *shape, dtype=torch.float64)
    together = composite.embed_media(name, media)
    alone = torch.cat([composite.embed_media(name, item[None]) for item in media])
    torch.testing.assert_close(together, alone, **EXACT)


def test_media_encoded_beforehand_give_the_same(composite, inputs):
    batch = inputs("itat", "tit")
    expected = composite(**batch).logits
    pixels, features = batch.pop("pixel_values"), batch.pop("input_features")
    embeds = {
        "image_embeds": composite.embed_media("image", pixels).flatten(0, 1),
        "audio_embeds": composite.embed_media("audio", features).flatten(0, 1),
    }
    torch.testing.assert_close(composite(**batch, **embeds).logits, expected, **EXACT)


def test_inputs_embeds_stand_for_input_ids(composite, inputs):
    batch = inputs("ttt")
    embeds = composite.get_input_embeddings()(batch["input_ids"])
    torch.testing.assert_close(composite(inputs_embeds=embeds).logits, composite(**batch).logits, **EXACT)


def test_labels_give_the_shifted_loss(composite, inputs):
    batch = inputs("itt")
    labels = batch["input_ids"].where(batch["input_ids"] != IMAGE_ID, -100)
    outputs = composite(**batch, labels=labels)
    expected = cross_entropy(outputs.logits[0, :-1], labels[0, 1:], ignore_index=-100)
    torch.testing.assert_close(outputs.loss.double(), expected, rtol=1e-6, atol=1e-6)  # the loss is float32


def test_further_keywords_reach_the_language_model(composite, inputs):
    seen = {}
    composite.text_model.model.register_forward_pre_hook(lambda _, args, kwargs: seen.update(kwargs), with_kwargs=True)
    outputs = composite(**inputs("itt"), logits_to_keep=1, marker="here")
    assert outputs.logits.shape[1] == 1
    assert seen["marker"] == "here"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"pixel_values": torch.zeros(1, 3, 16, 16)},
            r"expected 8 embeddings for the image tokens \(per row \[8, 0\]\), got 4",
        ),
        ({"pixel_values": None}, "expected 8 embeddings for the image tokens .*, got 0"),
        ({"input_features": torch.zeros(2, 8, 10)}, r"audio tokens \(per row \[0, 5\]\), got 10"),
        ({"audio_embeds": torch.zeros(5, 16)}, "`input_features` and `audio_embeds`: expected one"),
        ({"input_ids": None}, "exactly one of them"),
        ({"input_ids": None, "inputs_embeds": torch.zeros(1, 9, 16)}, "without `input_ids`"),
    ],
)
def test_media_that_do_not_fit_are_refused(composite, inputs, change, message):
    with pytest.raises(ValueError, match=message):
        composite(**{**inputs("iit", "at"), **change})


def test_media_of_an_absent_part_are_refused(inputs):
    model = CompositeForConditionalGeneration(composite_config(VISION["vit"]()))
    assert model.audio_encoder is None and model.audio_projector is None
    assert (
        model(**{k: v.float() if v.is_floating_point() else v for k, v in inputs("it").items()}).logits.isfinite().all()
    )
    with pytest.raises(ValueError, match="no audio input"):
        model(input_ids=torch.tensor([[1, AUDIO_ID]]), input_features=torch.zeros(1, 8, 10))


def test_a_text_only_composite_runs(inputs):
    model = CompositeForConditionalGeneration(composite_config())
    assert model(**inputs("ttt")).logits.shape == (1, 4, 50)


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_checkpointing_the_decoder_changes_no_gradient(composite, inputs, use_reentrant):
    batch = inputs("itat")

    def gradients() -> dict[str, torch.Tensor]:
        composite.zero_grad()
        composite.train()(**batch, labels=batch["input_ids"]).loss.backward()
        return {name: weight.grad.clone() for name, weight in composite.named_parameters() if weight.grad is not None}

    expected = gradients()
    enable = getattr(composite, "activation_checkpointing_enable", composite.gradient_checkpointing_enable)
    enable({"use_reentrant": use_reentrant})
    assert all(layer.gradient_checkpointing for layer in composite.get_decoder().layers)
    assert not any(getattr(m, "gradient_checkpointing", False) for m in composite.vision_encoder.modules())
    found = gradients()
    assert found.keys() == expected.keys() and "vision_projector.1.weight" in found
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], **EXACT)


def test_a_frozen_encoder_stays_in_eval(composite):
    composite.vision_encoder.requires_grad_(False)
    composite.train()
    assert not composite.vision_encoder.training
    assert composite.audio_encoder.training and composite.text_model.training


def test_decoder_embeddings_and_head_are_the_language_models(composite):
    assert composite.get_decoder() is composite.text_model.model
    assert composite.get_input_embeddings() is composite.text_model.model.embed_tokens
    assert composite.get_output_embeddings() is composite.text_model.lm_head
    composite.resize_token_embeddings(60, mean_resizing=False)
    assert composite.get_output_embeddings().weight.shape[0] == composite.config.text_config.vocab_size == 60


def test_the_attention_implementation_reaches_every_part():
    config = composite_config(VISION["clip"](), AUDIO["ast"](), attn_implementation="eager")
    model = CompositeForConditionalGeneration(config)
    parts = (model.text_model, model.vision_encoder, model.audio_encoder)
    assert [part.config._attn_implementation for part in parts] == ["eager"] * 3
