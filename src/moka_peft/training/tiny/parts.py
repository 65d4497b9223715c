"""Tiny random models in the place of published ones, saved as the folders and files that these come as."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from moka_peft.composite.published import published_config
from moka_peft.training.tiny.places import made
from moka_peft.training.tiny.sizes import SIZES, shrink
from moka_peft.training.tiny.templates import chat_template
from moka_peft.training.tiny.tokenizers import llama2_tokenizer, llama3_tokenizer, qwen_tokenizer

SEED = 0
SEGMENT_SECONDS = 2

TOKENIZERS: dict[str, Callable[[], Any]] = {
    "meta-llama/Llama-2-7b-chat-hf": lambda: _templated(llama2_tokenizer(), "inst"),
    "meta-llama/Meta-Llama-3-8B-Instruct": lambda: _templated(llama3_tokenizer(), "headers"),
    "Qwen/Qwen2-7B-Instruct": lambda: _templated(qwen_tokenizer(), "chatml"),
    "Qwen/Qwen2.5-VL-3B-Instruct": lambda: _templated(qwen_tokenizer(), "chatml"),
    "Qwen/Qwen2.5-VL-7B-Instruct": lambda: _templated(qwen_tokenizer(), "chatml"),
}
"""How the language models that recipes name write text."""


def _templated(tokenizer: Any, shape: str) -> Any:
    tokenizer.chat_template = chat_template(shape)
    return tokenizer


def _frames(config: Any) -> Any:
    return transformers.WhisperFeatureExtractor(feature_size=config.num_mel_bins, chunk_length=SEGMENT_SECONDS)


def _spectrogram(config: Any) -> Any:
    return transformers.ASTFeatureExtractor(num_mel_bins=config.num_mel_bins, max_length=config.max_length)


def _square(config: Any) -> dict[str, int]:
    return {"height": config.vision_config.image_size, "width": config.vision_config.image_size}


PREPROCESSORS: dict[str, Callable[[Any], Any]] = {
    "audio-spectrogram-transformer": _spectrogram,
    "clip": lambda config: CLIPImageProcessorPil(size={"shortest_edge": 28}, crop_size=_square(config)),
    "hubert": lambda config: transformers.Wav2Vec2FeatureExtractor(),
    "siglip": lambda config: SiglipImageProcessorPil(size=_square(config)),
    "wav2vec2": lambda config: transformers.Wav2Vec2FeatureExtractor(),
    "whisper": _frames,
}
"""What lies with an encoder and prepares its input, by model type."""


def tiny_text(name: str, folder: Path) -> Path:
    """A language model in the place of `name`, with its tokenizer. Raises ValueError for an unknown one."""
    if name not in TOKENIZERS:
        raise ValueError(
            f"`model.text` has no tiny stand-in: expected one of {', '.join(TOKENIZERS)}, got {name}. Train without "
            "--tiny, or name one of these."
        )
    tokenizer = TOKENIZERS[name]()
    return write_part(folder, name, shrink(published_config(name), tokenizer), tokenizer)


def tiny_encoder(name: str, folder: Path, part: str) -> Path:
    """An encoder in the place of `name`, with what prepares its input; BEATs as a `.pt`.

    part: "vision" or "audio". Raises ValueError for an unknown one.
    """
    if name.endswith(".pt"):
        return _tiny_beats(name, folder)
    config: Any = shrink(known_config(name, part))
    if config.model_type == "audio-spectrogram-transformer":
        config.max_length = 100 * SEGMENT_SECONDS
    return write_part(folder, name, config, PREPROCESSORS[config.model_type](config))


def known_config(name: str, part: str) -> Any:
    """The published config of a model; raises ValueError, naming the part of the recipe, for an unknown one."""
    try:
        return published_config(name)
    except ValueError as error:
        raise ValueError(f"`model.{part}` has no tiny stand-in: {error}") from error


def tiny_image_processor(name: str, folder: Path) -> Path:
    """The image processor in a folder, for tiny images: all else that its settings say stays."""
    settings = json.loads((Path(name) / "preprocessor_config.json").read_text(encoding="utf-8"))
    settings |= {key: _tiny_size(settings[key]) for key in settings.keys() & {"size", "crop_size"}}
    text = json.dumps(settings, sort_keys=True)

    def write(place: Path) -> None:
        place.mkdir()
        (place / "preprocessor_config.json").write_text(text, encoding="utf-8")

    return made(folder / f"{Path(name).name}-{hashlib.sha256(text.encode()).hexdigest()[:8]}", write)


def _tiny_size(size: Any) -> Any:
    """A number of pixels, or one for each side, as far as tiny images go."""
    if isinstance(size, dict):
        return {side: _tiny_size(pixels) for side, pixels in size.items()}
    return min(size, SIZES["image_size"])


def write_part(folder: Path, name: str, config: Any, *beside: Any) -> Path:
    """Saves a random model of `config`, the same ones each time, and what lies beside it, unless that is there."""

    def write(place: Path) -> None:
        place.mkdir()
        _random(getattr(transformers, config.architectures[0])._from_config, config).save_pretrained(place)
        for part in beside:
            part.save_pretrained(place)

    return made(folder / name.replace("/", "--"), write)


def _tiny_beats(name: str, folder: Path) -> Path:
    from moka_peft.composite.beats import BeatsConfig, BeatsModel, save_beats

    def write(place: Path) -> None:
        save_beats(_random(BeatsModel, shrink(BeatsConfig())), place)

    return made(folder / Path(name).name, write)


def _random(build: Callable[[Any], Any], config: Any) -> Any:
    """A model with the same random weights each time; the caller's random state stays."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        return build(config)
