"""Text with placeholders and media as tensors, and conversations as text."""

import numpy as np
import pytest
import torch
from PIL import Image

from moka_peft.composite import CompositeProcessor, tiny_avt_processor

IMAGE, VIDEO, AUDIO = "<image>", "<video>", "<audio>"


@pytest.fixture(scope="module")
def processor() -> CompositeProcessor:
    return tiny_avt_processor()


def picture(seed: int, size: tuple[int, int] = (128, 32)) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def clip(seed: int, seconds: float = 1.8) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(int(seconds * 16_000)).astype(np.float32)


def count(processor: CompositeProcessor, ids: torch.Tensor, token: str) -> list[int]:
    return (ids == processor.tokenizer.convert_tokens_to_ids(token)).sum(-1).tolist()


def test_each_placeholder_grows_to_its_embeddings(processor):
    batch = processor(
        text=[f"{VIDEO} many {AUDIO}", f"{IMAGE}{AUDIO}{IMAGE} notes"],
        images=[picture(0), picture(1)],
        videos=[[picture(2), picture(3), picture(4)]],
        audios=[clip(0), clip(1, seconds=4.5)],
        padding=True,
        padding_side="left",
        return_tensors="pt",
    )
    assert count(processor, batch["input_ids"], IMAGE) == [0, 32]
    assert count(processor, batch["input_ids"], VIDEO) == [48, 0]
    assert count(processor, batch["input_ids"], AUDIO) == [25, 75]
    assert batch["pixel_values"].shape == (2, 3, 32, 128)
    assert batch["pixel_values_videos"].shape == (3, 3, 32, 128)
    assert batch["input_features"].shape == (4, 40, 50)
    assert batch["attention_mask"][0, 0] == 0


def test_flat_and_nested_media_are_the_same(processor):
    text = [f"{IMAGE}{IMAGE}", "no media", IMAGE]
    flat = processor(text=text, images=[picture(0), picture(1), picture(2)])
    nested = processor(text=text, images=[[picture(0), picture(1)], [], [picture(2)]])
    assert torch.equal(flat["pixel_values"], nested["pixel_values"])
    assert flat["input_ids"] == nested["input_ids"]


def test_a_video_is_frames_or_an_array(processor):
    frames = [picture(0), picture(1)]
    array = np.stack([np.asarray(frame) for frame in frames])
    as_list = processor(text=VIDEO, videos=[frames])["pixel_values_videos"]
    assert torch.equal(processor(text=VIDEO, videos=[array])["pixel_values_videos"], as_list)
    assert torch.equal(processor(text=[VIDEO, ""], videos=[[frames], []])["pixel_values_videos"], as_list)
    assert torch.equal(processor(text=IMAGE * 2, images=frames)["pixel_values"], as_list)


def test_a_long_clip_is_its_segments(processor):
    long = clip(0, seconds=5.0)
    parts = [long[:32_000], long[32_000:64_000], long[64_000:]]
    whole = processor(text=AUDIO, audios=[long])["input_features"]
    assert torch.equal(whole, processor(text=AUDIO * 3, audios=parts)["input_features"])
    cut = np.stack(parts[:2])
    assert torch.equal(whole[:2], processor(text=AUDIO, audios=[cut])["input_features"])


def test_grey_pictures_paths_and_other_sizes_are_read(processor, tmp_path):
    grey = picture(0).convert("L")
    grey.save(tmp_path / "grey.png")
    expected = processor(text=IMAGE, images=grey.convert("RGB"))["pixel_values"]
    for image in (grey, np.asarray(grey), tmp_path / "grey.png"):
        assert torch.equal(processor(text=IMAGE, images=[image])["pixel_values"], expected)
    assert processor(text=IMAGE, images=picture(0, (50, 70)))["pixel_values"].shape == expected.shape


@pytest.mark.parametrize(
    ("media", "message"),
    [
        ({"images": [[picture(0)], [], []]}, "`images` do not fit row 1 of the text: expected 1, one for each <image>"),
        ({"images": [picture(0)]}, "row 1 of the text: expected 1, .* got 0"),
        ({"images": [picture(i) for i in range(4)]}, "row 2 of the text: expected 0, .* got 2"),
        ({}, "`images` do not fit row 0 of the text: expected 1, .* got 0"),
        ({"images": [[picture(0)], [picture(1)]]}, "`images` has 2 lists for 3 rows"),
        ({"images": [picture(0), picture(1)], "audios": [clip(0)]}, "`audios` do not fit row 2 .* expected 0"),
    ],
)
def test_media_that_do_not_fit_the_text_are_refused(processor, media, message):
    with pytest.raises(ValueError, match=message):
        processor(text=[IMAGE, f"text {IMAGE}", "text"], **media)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sampling_rate": 8000}, "`sampling_rate` is wrong: expected 16000 Hz, got 8000"),
        ({"audios": [np.zeros((2, 3, 4))]}, r"no waveform: .* got shape \[2, 3, 4\]"),
        ({"audios": [np.zeros(0)]}, "no waveform"),
        (
            {"audios": [np.zeros((2, 16_000))]},
            r"segments have the wrong length: expected \[segments, 32000\] samples, got \[2, 16000\]",
        ),
        ({"truncation": True, "max_length": 10}, "row 0 of the text lost <audio> tokens: expected 25, got 10"),
    ],
)
def test_what_audio_refuses(processor, options, message):
    with pytest.raises(ValueError, match=message):
        processor(**{"text": AUDIO, "audios": [clip(0)], **options})


def test_media_without_text_are_refused(processor):
    with pytest.raises(ValueError, match="`text` is missing"):
        processor(images=[picture(0)])


def test_media_of_an_absent_part_are_refused(processor):
    text_only = CompositeProcessor(tokenizer=processor.tokenizer)
    assert text_only.image_token is None and text_only.audio_token is None
    assert text_only(text="notes")["input_ids"] == processor(text="notes")["input_ids"]
    with pytest.raises(ValueError, match="`images` were given, but this processor has no `image_processor`"):
        text_only(text=IMAGE, images=[picture(0)])
    unfitted = CompositeProcessor(processor.image_processor, None, processor.tokenizer)
    with pytest.raises(ValueError, match="`tokens_per_image` is not set"):
        unfitted(text=IMAGE, images=[picture(0)])


def test_placeholders_of_an_absent_part_are_words(processor):
    """Text about HTML says <audio>; a composite that only sees takes it as text."""
    seeing = CompositeProcessor(processor.image_processor, None, processor.tokenizer, tokens_per_image=4)
    asked = [
        {"role": "user", "content": [{"type": "image", "image": picture(0)}, {"type": "text", "text": "<audio>?"}]}
    ]
    seeing.chat_template = processor.chat_template
    inputs = seeing.apply_chat_template(asked, tokenize=True, return_dict=True)
    assert len(inputs["pixel_values"]) == 1 and "input_features" not in inputs
    assert "<audio>?" in seeing.decode(inputs["input_ids"][0])


def test_a_video_without_frames_is_refused(processor):
    with pytest.raises(ValueError, match="`videos` holds a video without frames: expected at least one"):
        processor(text=VIDEO, videos=[np.zeros((0, 32, 32, 3), dtype=np.uint8)])


MESSAGES = [
    {"role": "user", "content": [{"type": "image", "image": picture(0)}, {"type": "text", "text": "How many?"}]},
    {"role": "assistant", "content": "four"},
    {"role": "user", "content": [{"type": "audio", "audio": clip(0)}, {"type": "text", "text": "And now?"}]},
]
RENDERED = "<|user|><image>How many?<|end|><|assistant|>four<|end|><|user|><audio>And now?<|end|>"


def test_parts_become_placeholders(processor):
    assert processor.apply_chat_template(MESSAGES) == RENDERED
    assert processor.apply_chat_template([MESSAGES, MESSAGES[:2]])[0] == RENDERED
    assert processor.apply_chat_template(MESSAGES, add_generation_prompt=True) == RENDERED + "<|assistant|>"
    assert (
        processor.tokenizer.apply_chat_template(MESSAGES, chat_template=processor.chat_template, tokenize=False)
        == RENDERED
    )  # the template itself knows parts, too


def test_a_template_that_knows_strings_only_renders_parts(processor):
    template = "{% for m in messages %}[{{ m.role }}] {{ m.content.strip() }} {% endfor %}"
    text = processor.apply_chat_template(MESSAGES, chat_template=template)
    assert text == "[user] <image>How many? [assistant] four [user] <audio>And now? "


def test_a_conversation_becomes_tensors(processor):
    options = {"padding": True, "padding_side": "left", "return_tensors": "pt"}
    batch = processor.apply_chat_template(
        [MESSAGES, MESSAGES[:1]], tokenize=True, return_dict=True, processor_kwargs=options
    )
    expected = processor(
        text=[RENDERED, "<|user|><image>How many?<|end|>"], images=[picture(0)] * 2, audios=[clip(0)], **options
    )
    assert batch.keys() == expected.keys()
    assert all(torch.equal(batch[name], expected[name]) for name in expected)


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([{"role": "user", "content": [{"type": "smell"}]}], "expected 'text' or one of .*, got 'smell'"),
        ([{"role": "user", "content": [{"type": "image"}]}], "type 'image' without content"),
    ],
)
def test_parts_that_cannot_be_read_are_refused(processor, messages, message):
    with pytest.raises(ValueError, match=message):
        processor.apply_chat_template(messages, tokenize=True)


def test_a_missing_template_is_refused(processor):
    bare = CompositeProcessor(tokenizer=processor.tokenizer)
    with pytest.raises(ValueError, match="`chat_template` is missing: neither the processor nor its tokenizer"):
        bare.apply_chat_template(MESSAGES)
