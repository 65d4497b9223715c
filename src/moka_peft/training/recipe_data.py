"""The data section of a recipe: where samples come from, how they are mixed, and how they are read."""

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field, PositiveFloat, PositiveInt, TypeAdapter, ValidationInfo, WrapValidator

from moka_peft.data.containers.paths import find_files
from moka_peft.data.datasets import DATASETS, check_options
from moka_peft.training.recipe_conflicts import Problem, section
from moka_peft.training.recipe_model import Section, existing_file, existing_folder, on_disk

Count = Annotated[int, Field(ge=0)]


def existing_data(path: str | list[str]) -> str | list[str]:
    """Checks that a source's path, pattern, folder or list of these names files; relative ones start here."""
    try:
        find_files(path)
    except FileNotFoundError as error:
        named = path if isinstance(path, str) else ", ".join(path)
        raise ValueError(f"no such file: {named} (relative paths start at the current folder)") from error
    return path


class Source(Section):
    """Where samples come from: files, a dataset of the hub, a published dataset in its folder, or a generated set.

    name: a dataset of docs/datasets.md, or a generated set: `av_digits`, `spoken_digits`. path: JSON, JSON lines,
    parquet, tar files or a folder of `datasets`; also a pattern, a folder, or a list. folder: the dataset's, or where
    relative media paths start, if not beside the file. question: what the texts of tar files answer. index: the token
    lengths that `moka validate --write-index` wrote.
    """

    name: (
        Literal[
            "av_digits",
            "spoken_digits",
            "music_avqa",
            "ave",
            "video_llava",
            "audiocaps",
            "llava_instruct",
            "a_okvqa",
            "librispeech",
            "libri_sqa",
        ]
        | None
    ) = None
    path: Annotated[str | list[str], on_disk(existing_data)] | None = None
    hub: str | None = None
    config: str | None = None
    split: str | None = None
    format: Literal["openai", "messages", "llava", "sharegpt"] | None = None
    folder: Annotated[str, on_disk(existing_folder)] | None = None
    streaming: bool | None = None
    question: str | None = None
    index: Annotated[str, on_disk(existing_file)] | None = None
    turns: Literal["multi", "single"] | None = None
    reasoning: bool | None = None
    part: Literal[1, 2] | None = None
    size: PositiveInt | None = None
    seed: Count | None = None
    groups: list[str] | None = None
    kinds: list[str] | None = None
    images: Literal["plain", "inverted", "noisy", "inverted_noisy"] | None = None
    sounds: Literal["plain", "other", "noisy", "other_noisy"] | None = None
    media: Literal["both", "image", "audio"] | None = None
    shortcuts: Annotated[float, Field(ge=0, le=1)] | None = None
    misleading: Annotated[float, Field(ge=0, le=1)] | None = None
    speakers: list[str] | None = None
    scenario: Literal["avt", "vt", "st"] | None = None
    task: Literal["caption", "question"] | None = None


class Media(Section):
    """How media are decoded: the fields of `MediaOptions`."""

    max_image_pixels: PositiveInt | None = None
    video_frames: PositiveInt = 8
    video_fps: PositiveFloat | None = None
    video_sound: bool = False
    max_video_seconds: PositiveFloat | None = None
    max_video_pixels: PositiveInt | None = None
    max_audio_seconds: PositiveFloat | None = None
    audio_segments: PositiveInt | None = None
    allow_urls: bool = False
    url_timeout_seconds: PositiveFloat = 10.0
    max_url_bytes: PositiveInt = 100 * 2**20


def one_or_several(value: Any, _: Any, info: ValidationInfo) -> Source | list[Source]:
    """A source or a list of them; other than a union of types, an error says which key of which is wrong."""
    if not isinstance(value, list):
        return Source.model_validate(value, context=info.context)
    if not value:
        raise ValueError("expected a source or several, got none")
    return TypeAdapter(list[Source]).validate_python(value, context=info.context)


Sources = Annotated[Source | list[Source], WrapValidator(one_or_several)]


class Data(Section):
    """Training samples, the held-out ones that are answered before and after, and how both are read.

    Several sources are shuffled together, or come one after another within each epoch (`order: in_order`). index: the
    token lengths of all training samples, which one source may also have as its own.
    """

    train: Sources
    eval: Sources | None = None
    order: Literal["shuffled", "in_order"] = "shuffled"
    index: Annotated[str, on_disk(existing_file)] | None = None
    media: Media = Field(default_factory=Media)
    on_bad_sample: Literal["raise", "skip"] = "raise"
    cache: str | None = None

    def lengths_file(self) -> str | None:
        """The file of the training samples' token lengths, if there is one."""
        return self.index or (self.train.index if isinstance(self.train, Source) else None)


def data_conflicts(raw: dict[str, Any]) -> list[Problem]:
    """What contradicts itself in the data section; raw: unvalidated data of a recipe."""
    data, found = section(raw, "data"), []
    sources = [(key, source) for part in ("train", "eval") for key, source in _sources(part, data.get(part))]
    for key, source in sources:
        found += [(("data", *key, *inner), text) for inner, text in _source_conflicts(source)]
        if len(key) == 2 and source.get("index") is not None:
            found.append((("data", *key, "index"), "has no meaning in a list: an index holds all. Set `data.index`."))
    if data.get("index") is not None and section(data, "train").get("index") is not None:
        found.append((("data", "index"), "is set beside `data.train.index`. Keep one of them."))
    found += _cache_conflicts(data, [source for _, source in sources], section(raw, "training").get("packing") is True)
    with_sound = [source["name"] for _, source in sources if source.get("name") in ("music_avqa", "ave")]
    if with_sound and section(data, "media").get("video_sound") is True:
        text = f"adds a second recording to the videos of `{with_sound[0]}`, which have theirs. Remove it."
        found.append((("data", "media", "video_sound"), text))
    return found


def _cache_conflicts(data: dict[str, Any], sources: list[dict[str, Any]], packing: bool) -> list[Problem]:
    """What the data and their rows cannot have together with a cache."""
    if data.get("cache") is None:
        return []
    found: list[Problem] = []
    if files := [source for source in sources if source.get("name") not in GENERATED]:
        named = next((files[0][key] for key in ("name", "path", "hub") if files[0].get(key)), "another one")
        known = ", ".join(GENERATED)
        found.append((("data", "cache"), f"is for generated samples: expected {known}, got {named}. Remove it."))
    if data.get("on_bad_sample") == "skip":
        found.append((("data", "cache"), "has no meaning with `on_bad_sample: skip`. Remove one of them."))
    if packing:
        found.append((("data", "cache"), "cannot hold packed rows. Remove it, or `training.packing`."))
    return found


def _sources(part: str, value: Any) -> Iterator[tuple[tuple[Any, ...], dict[str, Any]]]:
    """The key of each source of a part, and the source."""
    if isinstance(value, dict):
        yield (part,), value
    elif isinstance(value, list):
        yield from (((part, place), source) for place, source in enumerate(value) if isinstance(source, dict))


def _source_conflicts(source: dict[str, Any]) -> list[tuple[tuple[Any, ...], str]]:
    """What contradicts itself in one source of samples."""
    kinds = [kind for kind in ("name", "path", "hub") if source.get(kind) is not None]
    if len(kinds) != 1:
        return [((), "names no single source: expected one of `name`, `path` and `hub`.")]
    keys, words = _meaning(source, kinds[0])
    found: list[tuple[tuple[Any, ...], str]] = []
    for key in sorted(set(source) & set(Source.model_fields) - keys - {kinds[0]}):
        found.append(((key,), f"has no meaning for {words}. Remove it."))
    if (name := source.get("name")) in GENERATED and source.get("split", "train") not in ("align", "train", "test"):
        found.append((("split",), f"is wrong: expected 'train' or 'test', got {source['split']!r}."))
    if name in DATASETS:
        if source.get("folder") is None:
            found.append(((), f"has no `folder`: expected the folder of {name}. Set it."))
        split = {"split": source["split"]} if source.get("split") is not None else {}
        found += [((key,), text) for key, text in check_options(name, split)]
    return found


def _meaning(source: dict[str, Any], kind: str) -> tuple[set[str], str]:
    """The keys that have a meaning for a source, and what an error calls it."""
    if kind != "name":
        return SOURCE_KEYS[kind], SOURCE_WORDS[kind]
    name = source["name"] if isinstance(source["name"], str) else ""
    if name in DATASETS:
        return {"folder", "split", "streaming", "index", *DATASETS[name].options}, f"`{name}`"
    return GENERATED.get(name, set(Source.model_fields)), "generated samples"


SOURCE_KEYS = {
    "path": {"format", "folder", "streaming", "split", "question", "index"},
    "hub": {"config", "split", "format", "folder", "streaming", "index"},
}
SOURCE_WORDS = {"path": "a file of samples", "hub": "a dataset of the hub"}
_DIGITS = {"split", "size", "seed", "index"}
GENERATED = {
    "av_digits": {*_DIGITS, "groups", "kinds", "images", "sounds", "media", "shortcuts", "misleading"},
    "spoken_digits": {*_DIGITS, "scenario", "task", "folder", "speakers"},
}
