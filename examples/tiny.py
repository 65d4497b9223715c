"""What `--tiny` trains on the CPU: a random model of the example's class, its processor and made-up data.

Each function writes all of it into a folder and returns the model's folder and the data file, which the examples then
read as they read real ones. The processors have no video part, which needs torchvision; Omni's makes patches of the
frames with its image processor.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import soundfile
import torch
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoProcessor,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2_5OmniProcessor,
    Qwen2_5OmniThinkerForConditionalGeneration,
    Qwen2AudioConfig,
    Qwen2AudioForConditionalGeneration,
    Qwen2AudioProcessor,
    Qwen2VLImageProcessor,
    WhisperFeatureExtractor,
)
from transformers.models.qwen2_5_omni.configuration_qwen2_5_omni import Qwen2_5OmniThinkerConfig
from transformers.processing_utils import ProcessorMixin

AROUND = {"image": "vision", "video": "vision", "audio": "audio"}  # kind of media -> what its markers are called
NAMES = [*AROUND, "vision", *(f"{name}_{end}" for name in ("vision", "audio") for end in ("bos", "eos"))]
MARKS = {kind: f"<|{name}_bos|><|{kind}|><|{name}_eos|>" for kind, name in AROUND.items()}
# What stands between the generation tags is the answer: with assistant-only loss it alone carries loss.
TEMPLATE = (
    "{%- set marks = "
    + json.dumps(MARKS)
    + """ %}
{%- macro said(content) %}
  {%- if content is string %}{{- content }}{%- else %}
    {%- for part in content %}{{- marks[part.type] if part.type in marks else part.text }}{%- endfor %}
  {%- endif %}
{%- endmacro %}
{%- for message in messages %}
  {{- '<|im_start|>' + message.role + '\\n' }}
  {%- if message.role == 'assistant' %}
    {%- generation %}{{- said(message.content) + '<|im_end|>\\n' }}{%- endgeneration %}
  {%- else %}
    {{- said(message.content) + '<|im_end|>\\n' }}
  {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}
"""
)
QUESTION, ANSWERS, ROWS = "Which is it?", ("low", "high"), 8
RATE_HZ, SECONDS, MELS = 16_000, 0.4, 8
SIDE, PATCH, FRAMES, FPS = 16, 4, 8, 4
LAYERS = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1)
ROPE = {"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": [4, 2, 2]}
VISION = dict(depth=2, hidden_size=32, intermediate_size=48, num_heads=2, patch_size=PATCH, out_hidden_size=32)
WINDOWS = {"window_size": 16, "fullatt_block_indexes": [1]}
HEARING = dict(num_mel_bins=MELS, encoder_layers=2, encoder_attention_heads=2, encoder_ffn_dim=48, d_model=32)


def qwen2_5_vl(folder: str | Path) -> tuple[str, str]:
    """Qwen2.5-VL, and images that are dark or bright."""
    tokenizer = tiny_tokenizer()
    config = Qwen2_5_VLConfig(
        text_config={**text_settings(tokenizer), "rope_parameters": ROPE},
        vision_config={**VISION, **WINDOWS},
        **token_ids(tokenizer, image_token_id="image", video_token_id="video"),
        **token_ids(tokenizer, vision_start_token_id="vision_bos", vision_end_token_id="vision_eos"),
        **token_ids(tokenizer, vision_token_id="vision"),
    )
    processor = TinyQwen2_5_VLProcessor(image_processor(), tokenizer, chat_template=TEMPLATE)
    return write(folder, Qwen2_5_VLForConditionalGeneration, config, processor, images=write_image)


def qwen2_audio(folder: str | Path) -> tuple[str, str]:
    """Qwen2-Audio, and tones that are low or high."""
    tokenizer = tiny_tokenizer()
    config = Qwen2AudioConfig(
        audio_config={**HEARING, "max_source_positions": 50},
        text_config={**text_settings(tokenizer), "model_type": "qwen2"},
        **token_ids(tokenizer, audio_token_index="audio"),
    )
    processor = Qwen2AudioProcessor(feature_extractor(), tokenizer, chat_template=TEMPLATE)
    return write(folder, Qwen2AudioForConditionalGeneration, config, processor, audios=write_tone)


def qwen2_5_omni(folder: str | Path) -> tuple[str, str]:
    """The thinker of Qwen2.5-Omni, and videos with a tone: dark and low, or bright and high."""
    tokenizer = tiny_tokenizer()
    config = Qwen2_5OmniThinkerConfig(
        audio_config={**HEARING, "max_source_positions": 50, "n_window": 25, "output_dim": 32},
        vision_config={**VISION, **WINDOWS},
        text_config={**text_settings(tokenizer), "rope_parameters": ROPE},
        **token_ids(tokenizer, image_token_index="image", video_token_index="video", audio_token_index="audio"),
        **token_ids(tokenizer, vision_start_token_id="vision_bos", vision_end_token_id="vision_eos"),
        **token_ids(tokenizer, audio_start_token_id="audio_bos", audio_end_token_id="audio_eos"),
    )
    processor = TinyQwen2_5OmniProcessor(image_processor(), feature_extractor(), tokenizer, chat_template=TEMPLATE)
    media: dict[str, Callable[[Path, float], None]] = {"videos": write_video, "audios": write_tone}
    return write(folder, Qwen2_5OmniThinkerForConditionalGeneration, config, processor, **media)


class TinyQwen2_5_VLProcessor(Qwen2_5_VLProcessor):
    """Qwen2.5-VL's processor for images alone."""

    def __init__(self, image_processor=None, tokenizer=None, chat_template=None, **kwargs):
        for kind in ("image", "video"):
            setattr(self, f"{kind}_token", getattr(tokenizer, f"{kind}_token"))
            setattr(self, f"{kind}_token_id", getattr(tokenizer, f"{kind}_token_id"))
        ProcessorMixin.__init__(self, image_processor, tokenizer, chat_template=chat_template)


class TinyQwen2_5OmniProcessor(Qwen2_5OmniProcessor):
    """Omni's processor, whose image processor reads the frames of videos, too."""

    def __init__(self, image_processor=None, feature_extractor=None, tokenizer=None, chat_template=None):
        for name in NAMES:
            setattr(self, f"{name}_token", getattr(tokenizer, f"{name}_token"))
        for kind in AROUND:
            setattr(self, f"{kind}_token_id", getattr(tokenizer, f"{kind}_token_id"))
        ProcessorMixin.__init__(self, image_processor, feature_extractor, tokenizer, chat_template=chat_template)

    video_processor = property(lambda self: FrameProcessor(self.image_processor))


class FrameProcessor:
    """Makes patches of every frame of a video as of an image; the real one makes them of two frames."""

    def __init__(self, image_processor: Any):
        self.image_processor = image_processor
        self.merge_size, self.temporal_patch_size = image_processor.merge_size, image_processor.temporal_patch_size

    def __call__(self, videos: Any, **kwargs: Any) -> dict[str, Any]:
        made = [self.image_processor(list(frames), return_tensors="pt") for frames in videos]
        grids = [[len(each["image_grid_thw"]), *each["image_grid_thw"][0, 1:].tolist()] for each in made]
        patches = torch.cat([each["pixel_values"] for each in made])
        return {"pixel_values_videos": patches, "video_grid_thw": torch.tensor(grids)}


for processor_class in (TinyQwen2_5_VLProcessor, TinyQwen2_5OmniProcessor):  # so that AutoProcessor finds them
    stand_in = type(f"{processor_class.__name__}Config", (PreTrainedConfig,), {"model_type": processor_class.__name__})
    AutoProcessor.register(stand_in, processor_class)


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE that knows the media tokens by name, as Qwen's tokenizers do."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<pad>", "<|im_start|>", "<|im_end|>", *(f"<|{name}|>" for name in NAMES)]
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([" ".join([QUESTION, *ANSWERS, "user assistant"])] * 4, trainer)
    named = {f"{name}_token": f"<|{name}|>" for name in NAMES}
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<|im_end|>", extra_special_tokens=named
    )


def text_settings(tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    ids = {"pad_token_id": tokenizer.pad_token_id, "eos_token_id": tokenizer.eos_token_id, "bos_token_id": None}
    return {**LAYERS, **ids, "vocab_size": len(tokenizer)}


def token_ids(tokenizer: PreTrainedTokenizerFast, **names: str) -> dict[str, int]:
    return {key: tokenizer.convert_tokens_to_ids(f"<|{name}|>") for key, name in names.items()}


def image_processor() -> Qwen2VLImageProcessor:
    return Qwen2VLImageProcessor(patch_size=PATCH, merge_size=2, min_pixels=SIDE**2, max_pixels=SIDE**2)


def feature_extractor() -> WhisperFeatureExtractor:
    return WhisperFeatureExtractor(feature_size=MELS, sampling_rate=RATE_HZ, chunk_length=1)


def write(
    folder: str | Path,
    model_class: type[PreTrainedModel],
    config: Any,
    processor: ProcessorMixin,
    **media: Callable[[Path, float], None],
) -> tuple[str, str]:
    """Writes model, processor, media files and the rows that name them."""
    folder = Path(folder) / "tiny"
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    model_class(config).save_pretrained(folder)
    processor.save_pretrained(folder)
    rows = []
    for index in range(ROWS):
        level = index / (ROWS - 1)
        said = [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": ANSWERS[round(level)]}]
        row = {"messages": said}
        for kind, write_medium in media.items():
            name = f"{kind}-{index}{SUFFIX[kind]}"
            write_medium(folder / name, level)
            row[kind] = [name]
        rows.append(json.dumps(row))
    (folder / "train.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return str(folder), str(folder / "train.jsonl")


SUFFIX = {"images": ".png", "videos": ".mp4", "audios": ".wav"}


def write_image(path: Path, level: float) -> None:
    Image.new("RGB", (SIDE, SIDE), (int(255 * level),) * 3).save(path)


def write_tone(path: Path, level: float) -> None:
    seconds = np.arange(int(RATE_HZ * SECONDS)) / RATE_HZ
    soundfile.write(path, np.sin(2 * np.pi * (200 + 2000 * level) * seconds).astype(np.float32), RATE_HZ)


def write_video(path: Path, level: float) -> None:
    with av.open(str(path), "w") as file:
        stream = file.add_stream("mpeg4", rate=FPS)
        stream.width = stream.height = SIDE
        stream.pix_fmt = "yuv420p"
        frame = np.full((SIDE, SIDE, 3), int(255 * level), dtype=np.uint8)
        for _ in range(FRAMES):
            file.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        file.mux(stream.encode())
