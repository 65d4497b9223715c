"""Processors of transformers with tiny tokenizers and their own image processors and feature extractors, offline."""

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from transformers import GemmaTokenizer, LlamaTokenizer, Qwen2Tokenizer, WhisperFeatureExtractor
from transformers.video_utils import VideoMetadata

from moka_peft.routing import RoutingSpec, route

TRL_TEMPLATES = Path(find_spec("trl").origin).parent / "chat_templates"
WRITTEN = "'<|vision_start|><|' + part.type + '_pad|><|vision_end|>'"  # media in the ChatML of the fixtures
CHATML = "<|im_start|> <|im_end|>"
COHERE = "<|START_OF_TURN_TOKEN|> <|USER_TOKEN|> <|CHATBOT_TOKEN|> <|START_OF_IMG|> <|END_OF_IMG|>"
COHERE_TEMPLATE = """
{{- bos_token }}
{%- for message in messages %}
  {{- '<|START_OF_TURN_TOKEN|>' + ('<|USER_TOKEN|>' if message.role == 'user' else '<|CHATBOT_TOKEN|>') }}
  {%- for part in message.content %}
    {{- part.text if part.type == 'text' else '<image>' }}
  {%- endfor %}
  {{- '<|END_OF_TURN_TOKEN|>' }}
{%- endfor %}
"""
GLM_TEMPLATE = """
{{- '[gMASK]<sop>' }}
{%- for message in messages %}
  {{- '<|' + message.role + '|>\\n' }}
  {%- for part in message.content %}
    {{- part.text if part.type == 'text' else '<|begin_of_%s|><|%s|><|end_of_%s|>' | replace('%s', part.type) }}
  {%- endfor %}
{%- endfor %}
{%- if add_generation_prompt %}
  {{- '<|assistant|>\\n' }}
{%- endif %}
"""
SMALL = {"height": 28, "width": 28}
PATCHES = {"patch_size": 14, "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1}


def image_processor(model, name, **settings):
    return getattr(import_module(f"transformers.models.{model}.image_processing_pil_{model}"), name)(**settings)


def trl_template(name):
    return (TRL_TEMPLATES / f"{name}.jinja").read_text(encoding="utf-8")


class Frames:
    """A video processor that needs no torchvision: eight frames, one second apart from each other."""

    merge_size = temporal_patch_size = 2

    def __call__(self, videos, **options):
        seconds = VideoMetadata(total_num_frames=800, fps=10.0, frames_indices=list(range(0, 80, 10)))
        grids = torch.tensor([[4, 4, 4]] * len(videos))
        return {"video_grid_thw": grids, "video_metadata": [seconds] * len(videos)}


def without_video(cls):
    """The processor's class without a part for videos, which needs torchvision."""

    def start(self, image_processor=None, tokenizer=None, chat_template=None, **settings):
        cls.__init__(self, image_processor, tokenizer, None, chat_template=chat_template, **settings)

    return type(cls.__name__, (cls,), {"__init__": start})


def named(tokenizer, **tokens):
    """Gives a tokenizer the media tokens that its processor asks it for."""
    for name, text in tokens.items():
        setattr(tokenizer, name, text)
        setattr(tokenizer, f"{name}_id", tokenizer.convert_tokens_to_ids(text))
    return tokenizer


def ids(tokenizer, **tokens):
    return {name: tokenizer.convert_tokens_to_ids(text) for name, text in tokens.items()}


def llava(train, templates):
    tokenizer = train(LlamaTokenizer, "<image>", bos="<s>", eos="</s>")
    images = image_processor("llava", "LlavaImageProcessorPil", size=SMALL, crop_size=SMALL)
    processor = transformers.LlavaProcessor(images, tokenizer, chat_template=templates["user_colon"], **PATCHES)
    return transformers.LlavaConfig(**ids(tokenizer, image_token_index="<image>")), processor


def llava_next(train, templates):
    tokenizer = train(LlamaTokenizer, "<image>", bos="<s>", eos="</s>")
    settings = {"size": {"shortest_edge": 28}, "crop_size": SMALL, "image_grid_pinpoints": [[28, 56], [56, 28]]}
    images = image_processor("llava_next", "LlavaNextImageProcessorPil", **settings)
    processor = transformers.LlavaNextProcessor(images, tokenizer, chat_template=trl_template("llava_next"), **PATCHES)
    return transformers.LlavaNextConfig(**ids(tokenizer, image_token_index="<image>")), processor


def llava_onevision(train, templates):
    tokenizer = train(Qwen2Tokenizer, f"{CHATML} <image> <video>", eos="<|endoftext|>")
    images = image_processor(
        "llava_onevision", "LlavaOnevisionImageProcessorPil", size=SMALL, image_grid_pinpoints=[[28, 56], [56, 28]]
    )
    template = templates["chatml"].replace(WRITTEN, "'<' + part.type + '>'")
    processor = without_video(transformers.LlavaOnevisionProcessor)(
        images, tokenizer, template, num_image_tokens=4, vision_feature_select_strategy="full"
    )
    tokens = ids(tokenizer, image_token_index="<image>", video_token_index="<video>")
    return transformers.LlavaOnevisionConfig(**tokens), processor


def gemma3(train, templates):
    special = "<start_of_turn> <end_of_turn> <start_of_image> <end_of_image> <image_soft_token>"
    tokens = {"image_token": "<image_soft_token>", "boi_token": "<start_of_image>", "eoi_token": "<end_of_image>"}
    tokenizer = named(train(GemmaTokenizer, special, bos="<bos>", eos="<eos>"), **tokens)
    images = image_processor("gemma3", "Gemma3ImageProcessorPil", size=SMALL)
    processor = transformers.Gemma3Processor(
        images, tokenizer, image_seq_length=4, chat_template=trl_template("gemma3")
    )
    config = ids(tokenizer, **{f"{name}_index": text for name, text in tokens.items()})
    return transformers.Gemma3Config(**config), processor


def idefics3(train, templates):
    tiles = " ".join(f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7))
    special = f"<image> <end_of_utterance> <fake_token_around_image> <global-img> {tiles}"
    tokenizer = train(Qwen2Tokenizer, special, bos="<|begin_of_text|>", eos="<|end_of_text|>")
    sizes = {"size": {"longest_edge": 84}, "max_image_size": {"longest_edge": 28}}
    images = image_processor("idefics3", "Idefics3ImageProcessorPil", **sizes)
    processor = transformers.Idefics3Processor(
        images, tokenizer, image_seq_len=4, chat_template=trl_template("idefics3")
    )
    return transformers.Idefics3Config(**ids(tokenizer, image_token_id="<image>")), processor


def aya_vision(train, templates):
    special = f"{COHERE} <|IMG_PATCH|> <image> TILE_1 TILE_2 TILE_3 TILE_4 TILE_GLOBAL"
    tokenizer = train(Qwen2Tokenizer, special, bos="<BOS_TOKEN>", eos="<|END_OF_TURN_TOKEN|>")
    images = image_processor("got_ocr2", "GotOcr2ImageProcessorPil", size=SMALL, crop_to_patches=True, max_patches=4)
    processor = transformers.AyaVisionProcessor(
        images, tokenizer, patch_size=14, img_size=28, chat_template=COHERE_TEMPLATE
    )
    return transformers.AyaVisionConfig(**ids(tokenizer, image_token_index="<|IMG_PATCH|>")), processor


def internvl(train, templates):
    tokenizer = train(Qwen2Tokenizer, f"{CHATML} <img> </img> <IMG_CONTEXT> <video>", eos="<|endoftext|>")
    named(tokenizer, start_image_token="<img>", end_image_token="</img>", context_image_token="<IMG_CONTEXT>")
    named(tokenizer, video_token="<video>")
    images = image_processor("got_ocr2", "GotOcr2ImageProcessorPil", size=SMALL, crop_to_patches=True, max_patches=4)
    template = templates["chatml"].replace(WRITTEN, "'<IMG_CONTEXT>\\n'")
    processor = without_video(transformers.InternVLProcessor)(images, tokenizer, template, image_seq_length=3)
    return transformers.InternVLConfig(**ids(tokenizer, image_token_id="<IMG_CONTEXT>")), processor


def qwen(train, cls, config, template):
    vision = {f"vision_{end}_token_id": f"<|vision_{end}|>" for end in ("start", "end")}
    media = {f"{kind}_token_id": f"<|{kind}_pad|>" for kind in ("image", "video")}
    special = " ".join([CHATML, *vision.values(), *media.values()])
    tokenizer = train(Qwen2Tokenizer, special, "<tool_response> </tool_response>", eos="<|endoftext|>")
    images = image_processor("qwen2_vl", "Qwen2VLImageProcessorPil")
    processor = without_video(cls)(images, tokenizer, trl_template(template))
    processor.video_processor = Frames()
    return config(**ids(tokenizer, **media, **vision)), processor


def qwen2_5_vl(train, templates):
    return qwen(train, transformers.Qwen2_5_VLProcessor, transformers.Qwen2_5_VLConfig, "qwen2_5_vl")


def qwen3_vl(train, templates):
    return qwen(train, transformers.Qwen3VLProcessor, transformers.Qwen3VLConfig, "qwen3_vl")


def glm4v(train, templates):
    marks = {f"{k}_{e}_token_id": f"<|{e2}_of_{k}|>" for k in ("image", "video") for e, e2 in START_END}
    media = {f"{kind}_token_id": f"<|{kind}|>" for kind in ("image", "video")}
    special = " ".join(["[gMASK] <sop> <|user|> <|assistant|>", *marks.values(), *media.values()])
    tokenizer = train(Qwen2Tokenizer, special, eos="<|endoftext|>")
    images = image_processor("glm4v", "Glm4vImageProcessorPil")
    processor = without_video(transformers.Glm4vProcessor)(images, tokenizer, GLM_TEMPLATE)
    processor.video_processor = Frames()
    return transformers.Glm4vConfig(**ids(tokenizer, **marks, **media)), processor


START_END = (("start", "begin"), ("end", "end"))


def qwen2_audio(train, templates):
    special = f"{CHATML} <|audio_bos|> <|audio_eos|> <|AUDIO|>"
    tokenizer = train(Qwen2Tokenizer, special, eos="<|endoftext|>")
    processor = transformers.Qwen2AudioProcessor(WhisperFeatureExtractor(feature_size=8), tokenizer)
    return transformers.Qwen2AudioConfig(**ids(tokenizer, audio_token_index="<|AUDIO|>")), processor


class Omni(transformers.Qwen2_5OmniProcessor):
    """Qwen2.5-Omni's processor without its part for videos, which needs torchvision."""

    def __init__(self, image_processor=None, feature_extractor=None, tokenizer=None, chat_template=None):
        super(transformers.Qwen2_5OmniProcessor, self).__init__(
            image_processor, feature_extractor, tokenizer, chat_template=chat_template
        )
        for kind in ("image", "video", "audio"):
            setattr(self, f"{kind}_token", getattr(tokenizer, f"{kind}_token"))
            setattr(self, f"{kind}_token_id", getattr(tokenizer, f"{kind}_token_id"))


def qwen2_5_omni(train, templates):
    media = {f"{kind}_token": f"<|{kind.upper()}|>" for kind in ("image", "video", "audio")}
    marks = {f"{kind}_{end}_token_id": f"<|{kind}_{e}|>" for kind in ("vision", "audio") for end, e in BOS_EOS}
    tokenizer = train(Qwen2Tokenizer, " ".join([CHATML, *media.values(), *marks.values()]), eos="<|endoftext|>")
    written = "('<|{0}_bos|><|' ~ part.type | upper ~ '|><|{0}_eos|>')"
    written = f"({written.format('audio')} if part.type == 'audio' else {written.format('vision')})"
    template = templates["chatml"].replace(WRITTEN, written)
    images = image_processor("qwen2_vl", "Qwen2VLImageProcessorPil")
    processor = Omni(images, WhisperFeatureExtractor(feature_size=8), named(tokenizer, **media), template)
    processor.video_processor = Frames()
    thinker = ids(tokenizer, **{f"{name}_index": text for name, text in media.items()}, **marks)
    return transformers.Qwen2_5OmniConfig(thinker_config=thinker), processor


START_END, BOS_EOS = (("start", "begin"), ("end", "end")), (("start", "bos"), ("end", "eos"))
PROCESSORS = {  # builder -> kinds of media that it can be given here
    llava: ("image",),
    llava_next: ("image",),
    llava_onevision: ("image",),
    gemma3: ("image",),
    idefics3: ("image",),
    aya_vision: ("image",),
    internvl: ("image",),
    qwen2_5_vl: ("image", "video"),
    qwen3_vl: ("image", "video"),
    glm4v: ("image", "video"),
    qwen2_audio: ("audio",),
    qwen2_5_omni: ("image", "audio"),
}
SIZES = ((120, 60), (50, 90))  # neither is the size that the probe asks about


def medium(kind, index):
    if kind == "image":
        return Image.new("RGB", SIZES[index % 2], (9, 200, 90))
    if kind == "video":
        return np.full((8, 40, 60, 3), 80, dtype=np.uint8)
    return np.sin(np.arange(16_000 * (1 + index % 2)) / 50).astype(np.float32)


def processed(processor, turns):
    """`input_ids` [S] and what the processor says of every token's medium, for user turns of texts and "@kind"."""
    messages, media = [], {}
    for parts in turns:
        content = [{"type": p[1:]} if p[0] == "@" else {"type": "text", "text": p} for p in parts]
        messages += [{"role": "user", "content": content}, {"role": "assistant", "content": ANSWER}]
        for kind in (part[1:] for part in parts if part[0] == "@"):
            media.setdefault({"image": "images", "video": "videos"}.get(kind, kind), []).append(
                medium(kind, len(media))
            )
    text = processor.apply_chat_template(messages, tokenize=False)
    options = {"audio_kwargs": {"sampling_rate": 16_000}} if "audio" in media else {}
    inputs = processor(text=[text], add_special_tokens=False, return_mm_token_type_ids=True, **media, **options)
    input_ids = torch.tensor(inputs["input_ids"]).reshape(-1)
    types = next((inputs[name] for name in ("mm_token_type_ids", "token_type_ids") if name in inputs), None)
    if types is None:  # Qwen2.5-Omni before transformers 5.23
        names = [None, processor.image_token_id, processor.video_token_id, processor.audio_token_id]
        types = [names.index(token) if token in names else 0 for token in input_ids.tolist()]
    return input_ids, torch.as_tensor(types).reshape(-1)


ANSWER = [{"type": "text", "text": "Nothing much."}]


@pytest.mark.parametrize("build", PROCESSORS, ids=lambda build: build.__name__)
def test_what_a_processor_writes_is_read(build, tokenizer_like, chat_templates):
    config, processor = build(tokenizer_like, chat_templates)
    spec = RoutingSpec.from_pretrained(config, processor)
    one, other = (f"@{kind}" for kind in (PROCESSORS[build] * 2)[:2])
    input_ids, types = processed(processor, [(one, "What is it?"), ("Left or right", one, other), (other, one, "So?")])
    routing = route(input_ids[None], spec)
    modality = routing.modality[0]
    media = modality > 0
    assert (types[media] > 0).all() and not (routing.turn[0][~media & (types > 0)] > 0).any()  # markers may count too
    assert torch.equal(types[media] == 3, torch.tensor([spec.modalities[m] == "audio" for m in modality[media]]))
    assert (routing.turn[0][media] > 0).all() and (routing.turn[0][media].diff() >= 0).all()
    for turn, said in ((1, "What is it?"), (2, "Left or right"), (3, "So?")):
        assert (routing.turn[0][media] == turn).any()
        instruction = input_ids[(routing.turn[0] == turn) & ~media]
        assert processor.tokenizer.decode(instruction).strip() == said


def test_paligemma_has_no_turns_and_reads_a_spec_written_by_hand(tokenizer_like):
    tokenizer = tokenizer_like(GemmaTokenizer, "<image>", bos="<bos>", eos="<eos>")
    images = image_processor("siglip", "SiglipImageProcessorPil", size=SMALL)
    images.image_seq_length = 4
    processor = transformers.PaliGemmaProcessor(images, tokenizer)
    image, bos, newline = tokenizer.convert_tokens_to_ids(["<image>", "<bos>", "\n"])
    config = transformers.PaliGemmaConfig(image_token_index=image)
    with pytest.raises(ValueError, match=rf"PaliGemma.* is missing.*'visual': \({image},\).*answer_start=.*begins"):
        RoutingSpec.from_pretrained(config, processor)
    spec = RoutingSpec({"visual": (image,)}, skip=(bos,), answer_start=((newline,),))
    inputs = processor(text=["<image>Who is it?"], images=[medium("image", 0)], suffix=["a cat\non a mat"])
    input_ids = torch.tensor(inputs["input_ids"])
    routing = route(input_ids, spec)
    assert int(routing.is_media.sum()) == 4 and (routing.turn[routing.is_media] == 1).all()
    assert tokenizer.decode(input_ids[routing.is_instruction]) == "Who is it?"
