"""What the collator says where a processor would lose media, and the processors that are an exception."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from transformers import GemmaTokenizer
from transformers.video_utils import VideoMetadata

from moka_peft.composite import tiny_avt_processor
from moka_peft.data import Collator, Sample, SkippingCollator, merge_skipped
from moka_peft.data.answers import CLOSE, OPEN
from moka_peft.data.collator import IGNORED
from moka_peft.data.marked_tokenizer import MarkedTokenizer, tokens_inside

from ..routing import test_real_processors as real
from ..routing.conftest import CHATML, STYLES, USER_COLON, train_like
from .conversations import conversation, medium, mixed

TEMPLATES = {"chatml": CHATML, "user_colon": USER_COLON}


def with_padding(processor: Any) -> Any:
    processor.tokenizer.pad_token = processor.tokenizer.eos_token
    return processor


@pytest.fixture
def paligemma() -> Any:
    tokenizer = train_like(GemmaTokenizer, "<image>", bos="<bos>", eos="<eos>")
    images = real.image_processor("siglip", "SiglipImageProcessorPil", size=real.SMALL)
    images.image_seq_length = 4
    return with_padding(transformers.PaliGemmaProcessor(images, tokenizer))


# transformers' PaliGemma turns a tensor to an array in the way that numpy 2 warns of
@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept:DeprecationWarning")
def test_a_processor_with_suffixes_takes_one_turn(paligemma: Any):
    samples = [
        conversation("one", [medium("image", 0), "Who is it?"]),
        conversation("two", [medium("image", 1), medium("image", 2), "So?"]),
    ]
    samples[1].messages[1]["loss"] = False
    batch, prompts = Collator(paligemma)(samples), Collator(paligemma).collate_prompts(samples)
    labels = batch["labels"][0]
    assert paligemma.tokenizer.decode(labels[labels != IGNORED]) == "a cat.<eos>"
    assert (batch["labels"][1] == IGNORED).all() and batch["pixel_values"].shape[0] == 3
    assert paligemma.tokenizer.decode(prompts["input_ids"][0]).endswith("<image><bos>Who is it?\n")
    assert torch.equal(batch["input_ids"][1][: prompts["input_ids"].shape[1]], prompts["input_ids"][1])
    with pytest.raises(
        ValueError, match="sample `talk` has the roles user, assistant, user, assistant: .* one question"
    ):
        Collator(paligemma)([conversation("talk", [medium("image", 0), "?"], ["?"])])
    with pytest.raises(ValueError, match="sample `text` has no image"):
        Collator(paligemma).collate_prompts([conversation("text", ["?"])])


@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept:DeprecationWarning")
def test_a_batch_of_bad_samples_alone_where_text_alone_is_refused(paligemma: Any, tmp_path: Path):
    bad = replace(conversation("text", ["?"]), where="rows.jsonl, row 3")
    batch = SkippingCollator(Collator(paligemma), tmp_path / "log")([bad])
    assert batch["pixel_values"].shape[0] == 1 and (batch["labels"] == IGNORED).all()
    [skipped] = merge_skipped(tmp_path / "log", tmp_path / "all.jsonl")
    assert skipped["problem"].startswith("rows.jsonl, row 3, `messages`: sample `text` has no image")


def test_voxtral_is_refused_by_name():
    processor = real.qwen2_audio(train_like, TEMPLATES)[1]
    processor.__class__ = transformers.VoxtralProcessor
    with pytest.raises(
        ValueError, match="sample `one medium`: VoxtralProcessor cannot read its media: .*mistral-common"
    ):
        Collator(with_padding(processor))(mixed(("audio",)))


def test_a_missing_video_processor_is_named():
    processor = with_padding(real.qwen2_5_vl(train_like, TEMPLATES)[1])
    processor.video_processor = None
    with pytest.raises(ValueError, match="without its video processor, which needs torchvision. Install torchvision"):
        Collator(processor)(mixed(("video",)))


class Deaf(transformers.Qwen2AudioProcessor):
    """Ignores the audio that it is given."""

    def __call__(self, text: Any = None, audio: Any = None, **options: Any) -> Any:
        options.pop("audio_kwargs", None)
        return transformers.BatchFeature(dict(self.tokenizer(text, **options)))


class HalfDeaf(transformers.Qwen2AudioProcessor):
    """Returns the features of the first recording alone."""

    def __call__(self, **inputs: Any) -> Any:
        batch = super().__call__(**inputs)
        return {k: v[:1] if k in ("input_features", "feature_attention_mask") else v for k, v in batch.items()}


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (Deaf, "Deaf dropped 5 audio without a word: expected one of input_features, audio_input_features"),
        (HalfDeaf, "HalfDeaf takes no audio: neither `audio` nor `audios` is among its keywords"),
    ],
)
def test_audio_that_does_not_reach_the_batch_is_named(kind: type, message: str):
    processor = with_padding(real.qwen2_audio(train_like, TEMPLATES)[1])
    processor.chat_template = CHATML.replace(real.WRITTEN, "'<|audio_bos|><|AUDIO|><|audio_eos|>'")
    processor.__class__ = kind
    with pytest.raises(ValueError, match=message):
        Collator(processor)(mixed(("audio",)))


class LosesImages(transformers.Qwen2VLProcessor):
    """Returns some of the images that it was given; `lost`: the tensor that it cuts."""

    lost = ""

    def __call__(self, images: Any = None, text: Any = None, **options: Any) -> Any:
        batch = super().__call__(images=images, text=text, **options)
        return {**batch, "image_grid_thw": batch["image_grid_thw"][self.lost]}


@pytest.mark.parametrize(
    ("lost", "message"),
    [
        (slice(1, None), "LosesImages returns `image_grid_thw` for 4 image: expected 5"),
        ([0, 0, 1, 2, 3], r"LosesImages returns \d+ patches for \d+ media tokens: expected 4 for each"),
    ],
)
def test_grids_that_do_not_fit_are_named(lost: Any, message: str):
    processor = with_padding(real.qwen2_5_vl(train_like, TEMPLATES)[1])
    processor.__class__, LosesImages.lost = LosesImages, lost
    with pytest.raises(ValueError, match=message):
        Collator(processor)(mixed(("image",)))


def test_a_template_that_drops_a_medium_is_named():
    processor = tiny_avt_processor()
    processor.chat_template = "{% for m in messages %}{{ m.content | length }}<|end|>{% endfor %}"
    with pytest.raises(ValueError, match="sample `one medium`: 0 `<image>` in the text, 1 image attached"):
        Collator(processor)(mixed(("image",)))


def test_a_sample_that_is_too_long_is_named_and_never_cut():
    processor, samples = tiny_avt_processor(), mixed(("image", "audio"))
    lengths = Collator(processor).count_tokens(samples)
    longest = int(np.argmax(lengths))
    assert Collator(processor, max_length=max(lengths))(samples)["input_ids"].shape[1] == max(lengths)
    with pytest.raises(
        ValueError, match=rf"`two turns`: sample has {lengths[2]} tokens, expected at most {max(lengths) - 1}"
    ):
        Collator(processor, max_length=max(lengths) - 1)(samples)
    assert longest == 2


def test_unknown_kinds_are_refused():
    with pytest.raises(ValueError, match="`kinds`: expected some of image, video, audio, got smell"):
        Collator(tiny_avt_processor(), kinds=("image", "smell"))


def test_characters_kept_for_marks_are_refused():
    with pytest.raises(ValueError, match="a message holds U[+]FDD0"):
        Collator(tiny_avt_processor())([conversation("mark", ["a \ufdd0 b"])])


def test_a_word_that_is_joined_to_the_space_before_it_carries_loss():
    """`ASSISTANT: ` ends the prompt and the answer's first word swallows that space: it is answer all the same."""
    _, tokenizer = STYLES["user_colon"]()
    tokenizer.pad_token = tokenizer.eos_token
    template = "{% for m in messages %}{{ m.role | upper + ': ' + m.content }}{% endfor %}"
    processor = tiny_avt_processor()
    processor.tokenizer, processor.chat_template = (
        tokenizer,
        template + "{{ 'ASSISTANT: ' if add_generation_prompt }}",
    )
    batch = Collator(processor)(
        [Sample("s", [{"role": "user", "content": "What "}, {"role": "assistant", "content": "picture is"}])]
    )
    labels = batch["labels"][0]
    assert tokenizer.decode(labels[labels != IGNORED]).strip() == "picture is"


def test_which_tokens_belong_to_a_span():
    offsets = np.array([[0, 3], [3, 6], [6, 6], [6, 9], [9, 12], [0, 0]])
    assert tokens_inside(offsets, [(4, 10)]).tolist() == [False, True, True, True, True, False]
    assert tokens_inside(offsets, [(3, 6)]).tolist() == [False, True, False, False, False, False]
    assert not tokens_inside(offsets, []).any()


class TellsTimes(real.Frames):
    """Returns the metadata that it is given, as transformers' video processors do with frames that are chosen."""

    def __call__(self, videos: Any, **options: Any) -> Any:
        assert options["do_sample_frames"] is False
        given = [VideoMetadata(**metadata) for metadata in options["video_metadata"]]
        return {**super().__call__(videos), "video_metadata": given}


def test_times_of_frames_reach_the_processor():
    processor = with_padding(real.qwen3_vl(train_like, TEMPLATES)[1])
    processor.video_processor = TellsTimes()
    part = {**medium("video", 0), "fps": 0.5}
    (row,) = Collator(processor)([conversation("timed", [part, "Who?"])])["input_ids"]
    times = re.findall("<([0-9.]+) seconds>", processor.tokenizer.decode(row))
    assert times == ["1.0", "5.0", "9.0", "13.0"]  # frames every 2 s; the middle of each pair
    with pytest.raises(ValueError, match="1 of 2 videos of a batch have times: expected all or none"):
        Collator(processor)([conversation("both", [part, medium("video", 0), "Who?"])])


def test_positions_that_a_processor_asks_for_are_those_of_its_text():
    """Idefics 3's looks up, in the text that still has its marks, which tokens an image became."""
    tokenizer = tiny_avt_processor().tokenizer
    text = "yes<|end|><image><image> no"
    plain, marked = tokenizer([text], add_special_tokens=False), MarkedTokenizer(tokenizer)
    encoding = marked([f"{OPEN}yes<|end|>{CLOSE}<image><image>{OPEN} no{CLOSE}"], add_special_tokens=False)
    assert encoding["input_ids"] == plain["input_ids"]
    for position in range(10, 24):
        assert encoding.char_to_token(0, position + 2) == plain.char_to_token(0, position)
    (mask,) = marked.masks_for(plain["input_ids"], "")
    assert mask.tolist() == [True, True, False, False, True]
