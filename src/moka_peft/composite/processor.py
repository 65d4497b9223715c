"""Turns text with placeholders and media into what the composite's forward takes."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor
from transformers import AutoFeatureExtractor, AutoTokenizer, BatchFeature, ProcessorMixin

from .chat import as_batch, flatten_parts, media_of
from .media import cut_segments, load_frame, load_image_processor, sort_to_rows
from .placeholders import PLACEHOLDERS, check_ids, count_placeholders, repeat_placeholders

_PART_OF = {"image": "image_processor", "video": "image_processor", "audio": "feature_extractor"}


class CompositeProcessor(ProcessorMixin):
    """An image processor, an audio feature extractor and a tokenizer as one; each media part may be None.

    `tokens_per_image` and `tokens_per_segment` are the embeddings that the composite makes of one image or video
    frame and of one audio segment; `segment_seconds` is the length clips are cut into. Every placeholder is
    repeated to the number of embeddings of its media.
    """

    tokenizer: Any
    image_processor: Any
    feature_extractor: Any

    def __init__(
        self,
        image_processor: Any = None,
        feature_extractor: Any = None,
        tokenizer: Any = None,
        tokens_per_image: int = 0,
        tokens_per_segment: int = 0,
        segment_seconds: float = 0.0,
        chat_template: str | None = None,
    ):
        self.tokens_per_image = tokens_per_image
        self.tokens_per_segment = tokens_per_segment
        self.segment_seconds = segment_seconds
        template = chat_template or getattr(tokenizer, "chat_template", None)
        super().__init__(image_processor, feature_extractor, tokenizer, chat_template=template)
        self.image_token = PLACEHOLDERS["image"] if image_processor else None
        self.video_token = PLACEHOLDERS["video"] if image_processor else None
        self.audio_token = PLACEHOLDERS["audio"] if feature_extractor else None

    def __call__(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        images: Any = None,
        text: str | list[str] | None = None,
        videos: Any = None,
        audios: Any = None,
        *,
        audio: Any = None,
        sampling_rate: int | None = None,
        return_tensors: str | None = None,
        return_text_replacement_offsets: bool = False,
        **text_kwargs: Any,
    ) -> BatchFeature:
        """Makes `input_ids`, `attention_mask` and the media tensors of the forward; other keywords reach the
        tokenizer. Media are flat, in the order of their placeholders, or one list per row of `text`; `audio` is
        another name of `audios`.

        Raises ValueError where placeholders and media of a row differ in number, or a part is missing.
        """
        if text is None or isinstance(text, list | tuple) and not text:
            raise ValueError("`text` is missing: expected a string or a list of them. Media need their placeholders.")
        rows = [text] if isinstance(text, str) else list(text)
        given = {"image": images, "video": videos, "audio": audios if audio is None else audio}
        items = {name: self._sort(name, given[name], rows) for name in PLACEHOLDERS}
        videos = [[load_frame(frame) for frame in video] for video in items["video"]]
        clips = [self._cut(clip, sampling_rate) for clip in items["audio"]]
        rows, offsets = repeat_placeholders(rows, self._tokens(len(items["image"]), videos, clips))
        data = dict(self.tokenizer(rows, return_tensors=return_tensors, **text_kwargs))
        check_ids(self.tokenizer, data["input_ids"], rows)
        if return_text_replacement_offsets:
            data["text_replacement_offsets"] = offsets
        data |= self._pixels("pixel_values", [load_frame(image) for image in items["image"]])
        data |= self._pixels("pixel_values_videos", [frame for video in videos for frame in video])
        data |= self._features([segment for clip in clips for segment in clip])
        return BatchFeature(data)

    def apply_chat_template(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        conversation: list,
        chat_template: str | None = None,
        *,
        tokenize: bool = False,
        return_dict: bool = False,
        processor_kwargs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> Any:
        """Renders conversations with content parts; media become placeholders, so any text template will do.

        With `tokenize` the media in the parts are processed as well and, with `return_dict`, everything that the
        forward takes is returned. `processor_kwargs` reach `__call__`, others the template. Raises ValueError
        where there is no template.
        """
        template = chat_template or self.chat_template
        if template is None:
            raise ValueError(
                "`chat_template` is missing: neither the processor nor its tokenizer has one. Pass it to "
                "`build_composite`, or set `processor.chat_template`."
            )
        conversations, is_batch = as_batch(conversation)
        flat = [flatten_parts(messages) for messages in conversations]
        rendered = self.tokenizer.apply_chat_template(flat, chat_template=template, tokenize=False, **kwargs)
        if not tokenize:
            return rendered if is_batch else rendered[0]
        images, videos, audios = ([media_of(m, name) for m in conversations] for name in PLACEHOLDERS)
        options = {"add_special_tokens": False, **(processor_kwargs or {})}
        inputs = self(images, rendered, videos, audios, **options)
        return inputs if return_dict else inputs["input_ids"]

    def blank_pixels(self) -> Tensor:
        """What the image processor makes of one black image: [1, 3, H, W]."""
        return self._pixels("pixel_values", [Image.new("RGB", (64, 64))])["pixel_values"]

    def blank_features(self) -> Tensor:
        """What the feature extractor makes of one silent segment: [1, ...]."""
        return self._features([np.zeros(self._segment_samples(), dtype=np.float32)])["input_features"]

    @property
    def model_input_names(self) -> list[str]:
        names = list(self.tokenizer.model_input_names)
        names += ["pixel_values", "pixel_values_videos"] if self.image_processor else []
        return names + (["input_features"] if self.feature_extractor else [])

    def _sort(self, name: str, media: Any, rows: list[str]) -> list[Any]:
        """The media of one kind as a flat list that fits the placeholders. Raises where its part is missing."""
        per_row = [count_placeholders(row)[name] for row in rows]
        items = sort_to_rows(media, per_row, name)
        if items and getattr(self, _PART_OF[name]) is None:
            raise ValueError(
                f"`{name}s` were given, but this processor has no `{_PART_OF[name]}`. Leave them and their "
                f"{PLACEHOLDERS[name]} out, or build the composite with an encoder for them."
            )
        return items

    def _tokens(self, images: int, videos: list[list[Any]], clips: list[list[Any]]) -> dict[str, list[int]]:
        """Embeddings per image, video and clip."""
        for name, needed in {"tokens_per_image": images or videos, "tokens_per_segment": clips}.items():
            if needed and getattr(self, name) < 1:
                raise ValueError(f"`{name}` is not set. Set it, or let `fit_processor` measure it on the model.")
        return {
            "image": [self.tokens_per_image] * images,
            "video": [len(video) * self.tokens_per_image for video in videos],
            "audio": [len(clip) * self.tokens_per_segment for clip in clips],
        }

    def _cut(self, clip: Any, sampling_rate: int | None) -> list[np.ndarray]:
        """A clip's segments. Raises ValueError for a sampling rate other than the encoder's."""
        expected = self.feature_extractor.sampling_rate
        if sampling_rate not in (None, expected):
            raise ValueError(f"`sampling_rate` is wrong: expected {expected} Hz, got {sampling_rate}. Resample first.")
        return cut_segments(clip, self._segment_samples())

    def _segment_samples(self) -> int:
        if self.segment_seconds <= 0:
            raise ValueError(f"`segment_seconds` is wrong: expected more than 0, got {self.segment_seconds}. Set it.")
        return round(self.segment_seconds * self.feature_extractor.sampling_rate)

    def _pixels(self, name: str, images: list[Any]) -> dict[str, Tensor]:
        """Images or frames as one tensor [N, 3, H, W]."""
        return {name: self.image_processor(images, return_tensors="pt")["pixel_values"]} if images else {}

    def _features(self, segments: list[np.ndarray]) -> dict[str, Tensor]:
        """Segments as one tensor [N, ...]; the extractor pads short ones to `segment_seconds`."""
        if not segments:
            return {}
        extractor, options = self.feature_extractor, {"padding": "max_length", "max_length": self._segment_samples()}
        features = extractor(segments, sampling_rate=extractor.sampling_rate, return_tensors="pt", **options)
        return {"input_features": features[extractor.model_input_names[0]]}

    def check_argument_for_proper_class(self, argument_name: str, argument: Any) -> Any:
        """Lets a media part be None; transformers requires every part."""
        if argument is None and argument_name != "tokenizer":
            return None
        return super().check_argument_for_proper_class(argument_name, argument)

    def save_pretrained(self, save_directory: Any, push_to_hub: bool = False, **kwargs: Any) -> list[str]:
        """Writes the tokenizer's files, `processor_config.json` and `chat_template.jinja` into a folder."""
        if push_to_hub or kwargs:
            raise ValueError("`save_pretrained` only writes a folder. Call `push_to_hub` to upload it.")
        folder = Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        self.tokenizer._set_processor_class(type(self).__name__)
        files = list(self.tokenizer.save_pretrained(folder))
        if isinstance(self.chat_template, str):
            (folder / "chat_template.jinja").write_text(self.chat_template, encoding="utf-8")
        self.to_json_file(folder / "processor_config.json")
        return [*files, str(folder / "processor_config.json")]

    @classmethod
    def _get_arguments_from_pretrained(
        cls, pretrained_model_name_or_path: Any, processor_dict: dict[str, Any] | None = None, **kwargs: Any
    ) -> list[Any]:
        """Loads the parts that `processor_config.json` has; the others are None."""
        loaders = {"image_processor": load_image_processor, "feature_extractor": AutoFeatureExtractor.from_pretrained}
        parts = [
            load(pretrained_model_name_or_path, **kwargs) if (processor_dict or {}).get(name) else None
            for name, load in loaders.items()
        ]
        return [*parts, AutoTokenizer.from_pretrained(pretrained_model_name_or_path, **kwargs)]
