"""Turns text with placeholders and media into what the composite's forward takes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers import AutoFeatureExtractor, AutoTokenizer, BatchFeature, ProcessorMixin

from .chat import as_batch, flatten_parts, media_of
from .kinds import raw_name
from .media import argument_of, cut_segments, is_given, load_frame, load_image_processor, sort_to_rows
from .other_media import read_pieces
from .placeholders import PLACEHOLDERS, check_ids, placeholder_of, repeat_placeholders

_PART_OF = {"image": "image_processor", "video": "image_processor", "audio": "feature_extractor"}
_TOKENS_OF = {"image": "tokens_per_image", "video": "tokens_per_image", "audio": "tokens_per_segment"}


class CompositeProcessor(ProcessorMixin):
    """An image processor, an audio feature extractor and a tokenizer as one; each media part may be None.

    `tokens_per_image` and `tokens_per_segment` are the embeddings that the composite makes of one image or video
    frame and of one audio segment; `segment_seconds` is the length clips are cut into. `other_media` holds, by kind,
    the `shape` of a piece and its number of embeddings, `tokens`. Every placeholder is repeated to the number of
    embeddings of its media. `readers` may hold a function per other kind, see `read_pieces`; it is not saved.
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
        other_media: dict[str, dict[str, Any]] | None = None,
    ):
        self.tokens_per_image = tokens_per_image
        self.tokens_per_segment = tokens_per_segment
        self.segment_seconds = segment_seconds
        template = chat_template or getattr(tokenizer, "chat_template", None)
        super().__init__(image_processor, feature_extractor, tokenizer, chat_template=template)
        self.image_token = PLACEHOLDERS["image"] if image_processor else None
        self.video_token = PLACEHOLDERS["video"] if image_processor else None
        self.audio_token = PLACEHOLDERS["audio"] if feature_extractor else None
        self.other_media = other_media or {}
        self.readers: dict[str, Callable[[Any], Any]] = {}
        for kind in self.other_media:
            setattr(self, f"{kind}_token", placeholder_of(kind))

    @property
    def kinds(self) -> list[str]:
        """Every kind of media that has a placeholder in text."""
        return [*PLACEHOLDERS, *self.other_media]

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
        another name of `audios`; other media come under their kind, such as `series=[...]`.

        Raises ValueError where placeholders and media of a row differ in number, or a part is missing.
        """
        if text is None or isinstance(text, list | tuple) and not text:
            raise ValueError("`text` is missing: expected a string or a list of them. Media need their placeholders.")
        rows = [text] if isinstance(text, str) else list(text)
        given = {"image": images, "video": videos, "audio": audios if audio is None else audio}
        given |= {kind: text_kwargs.pop(kind, None) for kind in self.other_media}
        items = {kind: self._sort(kind, given[kind], rows) for kind in self.kinds}
        present = [kind for kind in self.kinds if getattr(self, f"{kind}_token")]
        pieces = {kind: [self._cut(kind, item, sampling_rate) for item in items[kind]] for kind in present}
        rows, offsets = repeat_placeholders(rows, {kind: self._tokens(kind, cut) for kind, cut in pieces.items()})
        data = dict(self.tokenizer(rows, return_tensors=return_tensors, **text_kwargs))
        check_ids(self.tokenizer, data["input_ids"], rows, present)
        if return_text_replacement_offsets:
            data["text_replacement_offsets"] = offsets
        for kind, cut in pieces.items():
            data |= self._tensors(kind, [piece for item in cut for piece in item])
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
        flat = [flatten_parts(messages, self.kinds) for messages in conversations]
        rendered = self.tokenizer.apply_chat_template(flat, chat_template=template, tokenize=False, **kwargs)
        if not tokenize:
            return rendered if is_batch else rendered[0]
        media = {argument_of(kind): [media_of(messages, kind) for messages in conversations] for kind in self.kinds}
        inputs = self(text=rendered, **media, **{"add_special_tokens": False, **(processor_kwargs or {})})
        return inputs if return_dict else inputs["input_ids"]

    def blank_pixels(self) -> Tensor:
        """What the image processor makes of one black image: [1, 3, H, W]."""
        return self._tensors("image", [Image.new("RGB", (64, 64))])["pixel_values"]

    def blank_features(self) -> Tensor:
        """What the feature extractor makes of one silent segment: [1, ...]."""
        return self._tensors("audio", [np.zeros(self._segment_samples(), dtype=np.float32)])["input_features"]

    @property
    def model_input_names(self) -> list[str]:
        media = [raw_name(kind) for kind in self.kinds if getattr(self, f"{kind}_token")]
        return [*self.tokenizer.model_input_names, *media]

    def _sort(self, kind: str, media: Any, rows: list[str]) -> list[Any]:
        """The media of one kind as a flat list that fits the placeholders; without its part, `<audio>` in text is a
        word like others. Raises where media came without their part."""
        if getattr(self, f"{kind}_token"):
            return sort_to_rows(media, [row.count(placeholder_of(kind)) for row in rows], kind)
        if is_given(media):
            raise ValueError(
                f"`{argument_of(kind)}` were given, but this processor has no `{_PART_OF[kind]}`. Leave them and their "
                f"{placeholder_of(kind)} out, or build the composite with an encoder for them."
            )
        return []

    def _cut(self, kind: str, item: Any, sampling_rate: int | None) -> list[Any]:
        """What the encoder sees of one medium, piece by piece: an image, a video's frames, a clip's segments."""
        if kind in self.other_media:
            return read_pieces(kind, item, self.readers.get(kind), **self.other_media[kind])
        if kind == "video" and len(item) == 0:
            raise ValueError("`videos` holds a video without frames: expected at least one. Leave it out.")
        if kind != "audio":
            return [load_frame(image) for image in ([item] if kind == "image" else item)]
        expected = self.feature_extractor.sampling_rate
        if sampling_rate not in (None, expected):
            raise ValueError(f"`sampling_rate` is wrong: expected {expected} Hz, got {sampling_rate}. Resample first.")
        return cut_segments(item, self._segment_samples())

    def _tokens(self, kind: str, items: list[list[Any]]) -> list[int]:
        """Embeddings per medium of one kind, each given as its pieces."""
        name = _TOKENS_OF.get(kind, f"other_media['{kind}']['tokens']")
        per_piece = self.other_media[kind].get("tokens", 0) if kind in self.other_media else getattr(self, name)
        if items and per_piece < 1:
            raise ValueError(f"`{name}` is not set. Set it, or let `fit_processor` measure it on the model.")
        return [len(pieces) * per_piece for pieces in items]

    def _segment_samples(self) -> int:
        if self.segment_seconds <= 0:
            raise ValueError(f"`segment_seconds` is wrong: expected more than 0, got {self.segment_seconds}. Set it.")
        return round(self.segment_seconds * self.feature_extractor.sampling_rate)

    def _tensors(self, kind: str, pieces: list[Any]) -> dict[str, Tensor]:
        """Pieces as one tensor [N, ...] under the forward's keyword; the extractor pads short segments."""
        if not pieces:
            return {}
        if kind in self.other_media:
            return {raw_name(kind): torch.stack(pieces)}
        if kind != "audio":
            return {raw_name(kind): self.image_processor(pieces, return_tensors="pt")["pixel_values"]}
        extractor, options = self.feature_extractor, {"padding": "max_length", "max_length": self._segment_samples()}
        features = extractor(pieces, sampling_rate=extractor.sampling_rate, return_tensors="pt", **options)
        return {raw_name(kind): features[extractor.model_input_names[0]]}

    def to_dict(self) -> dict[str, Any]:
        """As transformers does, and whether a kind of media had a reader, which cannot be written."""
        written = super().to_dict()
        for kind, medium in written["other_media"].items():
            medium["has_reader"] = medium.get("has_reader", False) or kind in self.readers
        return written

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
