"""The collator on processors of transformers: media in every place, text-only rows, answers, prompts, padding."""

from importlib import import_module
from itertools import groupby
from typing import Any

import pytest
import torch
import transformers
from transformers import Qwen2Tokenizer, WhisperFeatureExtractor

from moka_peft.data import Collator, Sample
from moka_peft.data.collator import IGNORED
from moka_peft.data.processor_inputs import media_ids_of

from ..routing import test_real_processors as real
from ..routing.conftest import CHATML, HEADERS, INST, TURNS, USER_COLON, train_like
from .conversations import mixed

TEMPLATES = {"chatml": CHATML, "inst": INST, "user_colon": USER_COLON, "headers": HEADERS, "turns": TURNS}


class PanAndScan(transformers.Gemma3Processor):
    """Gemma 3's processor with pan and scan on: it writes sentences around the crops of long images."""

    def __call__(self, images: Any = None, text: Any = None, **options: Any) -> Any:
        crops = dict(do_pan_and_scan=True, pan_and_scan_min_crop_size=20, pan_and_scan_max_num_crops=4)
        crops |= dict(pan_and_scan_min_ratio_to_activate=1.2)
        return super().__call__(images=images, text=text, images_kwargs=crops, **options)


def gemma3_pan_and_scan(train: Any, templates: Any) -> Any:
    config, processor = real.gemma3(train, templates)
    processor.__class__ = PanAndScan
    return config, processor


def phi4_audio(train: Any, templates: Any) -> Any:
    """Phi-4's processor without its part for images, which needs torchvision."""
    tokenizer = train(Qwen2Tokenizer, "<|user|> <|assistant|> <|end|> <|image|> <|audio|>", eos="<|endoftext|>")
    real.named(tokenizer, image_token="<|image|>", audio_token="<|audio|>")
    module = import_module("transformers.models.phi4_multimodal.feature_extraction_phi4_multimodal")
    processor = object.__new__(transformers.Phi4MultimodalProcessor)
    processor.audio_processor, processor.tokenizer = module.Phi4MultimodalFeatureExtractor(), tokenizer
    processor.image_token, processor.audio_token, processor.audio_token_id = (
        None,
        "<|audio|>",
        tokenizer.audio_token_id,
    )
    processor.chat_template = (
        "{% for m in messages %}<|{{ m.role }}|>{% for p in m.content %}{{ p.text if p.type == 'text' else "
        "'<|' + p.type + '|>' }}{% endfor %}<|end|>{% endfor %}{{ '<|assistant|>' if add_generation_prompt }}"
    )
    return None, processor


def audioflamingo3(train: Any, templates: Any) -> Any:
    tokenizer = train(Qwen2Tokenizer, "<|im_start|> <|im_end|> <sound>", eos="<|endoftext|>")
    template = templates["chatml"].replace(real.WRITTEN, "'<sound>'")
    return None, transformers.AudioFlamingo3Processor(WhisperFeatureExtractor(), tokenizer, template)


def mllama(train: Any, templates: Any) -> Any:
    special = "<|start_header|> <|end_header|> <|eot|> <|image|>"
    tokenizer = train(Qwen2Tokenizer, special, bos="<|begin|>", eos="<|end|>")
    images = real.image_processor("mllama", "MllamaImageProcessorPil", size=real.SMALL, max_image_tiles=2)
    return None, transformers.MllamaProcessor(images, tokenizer, chat_template=templates["headers"])


PROCESSORS = {mllama: ("image",), **real.PROCESSORS, gemma3_pan_and_scan: ("image",), phi4_audio: ("audio",)}
PROCESSORS |= {audioflamingo3: ("audio",)}
# AudioFlamingo 3 wants one sound in each row; Mllama, before transformers 5.23, an image: the samples that have them
MEDIA_IN_EACH = {audioflamingo3: (0, 4), mllama: (0, 2, 4)}


def built(build: Any) -> Any:
    processor = build(train_like, TEMPLATES)[1]
    processor.tokenizer.pad_token = processor.tokenizer.eos_token or processor.tokenizer.pad_token
    return processor


ENDS = {  # what ends an answer, where it is not ChatML's
    "llava": "</s>",
    "llava_next": "</s> ",
    "gemma3": "<end_of_turn>\n",
    "gemma3_pan_and_scan": "<end_of_turn>\n",
    "idefics3": "<end_of_utterance>\n",
    "aya_vision": "<|END_OF_TURN_TOKEN|>",
    "glm4v": "",
    "phi4_audio": "<|end|>",
    "mllama": "<|eot|>",
}
BEGINS = {"aya_vision": "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>", "idefics3": " "}  # after the generation prompt


def runs(processor: Any, batch: Any, row: int) -> list[str]:
    """The text of each run of supervised tokens."""
    labels = batch["labels"][row].tolist()
    groups = [list(group) for kept, group in groupby(labels, key=lambda label: label != IGNORED) if kept]
    return [processor.tokenizer.decode(group) for group in groups]


def samples_for(build: Any) -> list[Sample]:
    """Rows with and without media, where the processor takes such."""
    samples = mixed(PROCESSORS[build])
    return [samples[i] for i in MEDIA_IN_EACH[build]] if build in MEDIA_IN_EACH else samples


@pytest.fixture(params=PROCESSORS, ids=lambda build: build.__name__)
def build(request: Any) -> Any:
    return request.param


pytestmark = [  # transformers' GLM-4V and, in 5.17, InternVL make arrays of tensors in ways that numpy 2 warns of
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:__array_wrap__ must accept context:DeprecationWarning"),
]


def test_loss_falls_on_answers_alone(build: Any):
    processor, samples = built(build), samples_for(build)
    batch = Collator(processor)(samples)
    begin, end = (table.get(build.__name__) for table in (BEGINS, ENDS))
    for row, sample in enumerate(samples):
        answers = [message["content"] for message in sample.messages if message["role"] == "assistant"]
        found = runs(processor, batch, row)
        expected = [(begin or "") + answer + ("<|im_end|>\n" if end is None else end) for answer in answers]
        if build is real.llava_next and len(found) > 1:  # the space after an answer and the [ of [INST] are one token
            expected[:-1] = [text + "[" for text in expected[:-1]]
        assert found == expected
    kept = batch["labels"] != IGNORED
    assert (
        torch.equal(batch["labels"][kept], batch["input_ids"][kept])
        and not (kept & (batch["attention_mask"] == 0)).any()
    )
    assert not torch.isin(batch["labels"], torch.tensor(media_ids_of(processor))).any()


def test_rows_and_prompts_are_those_of_the_samples_alone(build: Any):
    processor, samples = built(build), samples_for(build)
    collator = Collator(processor)
    batch, prompts, lengths = collator(samples), collator.collate_prompts(samples), collator.count_tokens(samples)
    assert lengths == batch["attention_mask"].sum(1).tolist() and "labels" not in prompts
    for row, sample in enumerate(samples):
        alone, prompt = collator([sample]), collator.collate_prompts([sample])
        length, prompt_length = alone["input_ids"].shape[1], prompt["input_ids"].shape[1]
        for name in ("input_ids", "labels"):
            assert torch.equal(batch[name][row, :length], alone[name][0])
        assert (batch["labels"][row, length:] == IGNORED).all()
        assert torch.equal(prompts["input_ids"][row, -prompt_length:], prompt["input_ids"][0])
        assert torch.equal(alone["input_ids"][0, : prompt_length - 1], prompt["input_ids"][0, :-1])
    with_media = [sample for sample in samples if any(sample.media(kind) for kind in PROCESSORS[build])]
    for name in ("pixel_values", "input_features", "audio_input_features"):
        if name in batch and build not in (real.idefics3, mllama):  # they pad images per row
            assert torch.equal(batch[name], collator(with_media)[name])


def test_messages_without_loss_carry_none(build: Any):
    processor, samples = built(build), samples_for(build)
    collator = Collator(processor)
    whole = collator(samples)["labels"]
    for sample in samples:
        for message in sample.messages[:2]:
            message["loss"] = False
    part = collator(samples)["labels"]
    for row, sample in enumerate(samples):
        removed = runs(processor, {"labels": whole}, row)[1:]
        assert runs(processor, {"labels": part}, row) == removed
        assert len(removed) == len(sample.messages) // 2 - 1


def test_a_blank_medium_fills_in_for_a_kind_that_a_batch_lacks(build: Any):
    processor, kinds = built(build), PROCESSORS[build]
    collator, everything = Collator(processor, kinds=kinds), samples_for(build)
    assert len(collator(everything)["input_ids"]) == len(everything)
    if build not in MEDIA_IN_EACH:
        text = mixed(kinds)[1:2]
        batch, without = collator(text), Collator(processor)(text)
        assert len(batch["input_ids"]) == 1 + len(kinds) and (batch["labels"][1:] == IGNORED).all()
        assert batch.keys() > without.keys() and torch.equal(
            batch["labels"][0, : without["labels"].shape[1]], without["labels"][0]
        )


def test_pan_and_scan_wrote_around_the_crops():
    processor = built(gemma3_pan_and_scan)
    (row,) = Collator(processor)(mixed(("image",))[:1])["input_ids"]
    assert "Here is the original image" in processor.tokenizer.decode(row)
