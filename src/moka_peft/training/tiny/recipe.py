"""A recipe at the size of a laptop: tiny random models, made-up data, two steps, and nothing else changed."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from moka_peft.training.tiny.models import tiny_model
from moka_peft.training.tiny.parts import tiny_encoder, tiny_image_processor, tiny_text
from moka_peft.training.tiny.places import claim_tiny_folder, made, tiny_run

Data = dict[str, Any]

STEPS, SAMPLES = 2, 4
SMALL = {
    "training": {"batch_size": 2, "gradient_accumulation": 2, "warmup_steps": 1},
    "evaluation": {"batch_size": 2, "max_new_tokens": 4, "steps": 1},
    "media": {"video_frames": 2, "audio_segments": 2},
    "audio": {"segment_seconds": 2.0},
    "projector": {"num_queries": 2, "hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 48},
}
"""Keys of a section and the most that they keep."""
WIDTHS = ("hidden_size", "num_attention_heads", "intermediate_size")  # of a Q-Former: wide where they are left out


def shrink_recipe(data: Mapping[str, Any]) -> Data:
    """The data of a recipe whose run takes seconds; writes the models and the media that it names.

    data: as a recipe may have it. Sizes shrink, hub ids and named datasets become files in the folder `tiny` beside
    `output_dir`, where the run goes, too. Raises ValueError for a model or source that has no tiny stand-in, and where
    a run to start from was not run tiny, or the folder is not one of ours.
    """
    place = claim_tiny_folder(data["output_dir"])
    small = dict(data) | {"output_dir": str(tiny_run(data["output_dir"]))}
    small["model"] = _model(data["model"], place / "parts")
    small["data"] = _data(data["data"], place / "data")
    small["training"] = _training(data.get("training") or {})
    small["evaluation"] = _evaluation(data.get("evaluation") or {})
    small.pop("push_to_hub", None)
    return small | ({} if small.get("resume") else {"overwrite": True})


def _model(model: Data, place: Path) -> Data:
    small = {key: value for key, value in model.items() if key not in ("tokenizer", "revision")}
    if model.get("name") not in (None, "tiny-avt"):
        small["name"] = str(tiny_model(model["name"], place))
    if model.get("text"):
        small["text"] = str(tiny_text(model["text"], place))
    for part in ("vision", "audio"):
        if model.get(part):
            small[part] = _encoder(part, model[part], place)
    if model.get("start_from"):
        small["start_from"] = [_earlier_run(folder) for folder in model["start_from"]]
    return small


def _encoder(part: str, section: Data, place: Path) -> Data:
    small = _limited({key: value for key, value in section.items() if key != "processor"}, "audio")
    small["name"] = str(tiny_encoder(section["name"], place, part))
    if part == "vision" and section.get("processor") and Path(section["processor"]).is_dir():
        small["processor"] = str(tiny_image_processor(section["processor"], place))
    if projector := section.get("projector"):
        widths = {key: SMALL["projector"][key] for key in WIDTHS} if projector.get("type") == "qformer" else {}
        small["projector"] = _limited(widths | projector, "projector")
    return small


def _earlier_run(folder: str) -> str:
    tiny = tiny_run(folder)
    if not (tiny / "adapter_model.safetensors").is_file():
        raise ValueError(
            f"`model.start_from` has no tiny run: expected one in {tiny}. Run the recipe that writes {folder} with "
            "--tiny first."
        )
    return str(tiny)


def _data(section: Data, place: Path) -> Data:
    small = {key: value for key, value in section.items() if key != "index"}
    for part in ("train", "eval"):
        if sources := section.get(part):
            several = isinstance(sources, list)
            small[part] = [_source(one, place) for one in sources] if several else _source(sources, place)
    return small | {"media": _limited(section.get("media") or {}, "media")}


def _source(source: Data, place: Path) -> Data:
    """A source of a few samples: a published dataset is made up in its layout, files stay as they are."""
    from moka_peft.data.datasets import DATASETS
    from moka_peft.data.generated import write_generated

    small = {key: value for key, value in source.items() if key != "index"}
    if "hub" in source:
        raise ValueError(f"`data` has no tiny stand-in for the hub's {source['hub']}: expected `name` or `path`.")
    name = source.get("name")
    if name not in DATASETS:
        return small | ({"size": 2 * SAMPLES} if name else {})
    known = ("split", *DATASETS[name].options)
    options = {key: small[key] for key in small if key in known and small[key] is not None}
    folder = place / "-".join([name, *(f"{key}={value}" for key, value in options.items())])
    small["folder"] = str(made(folder, lambda folder: write_generated(name, folder, samples=SAMPLES, **options)))
    return small


def _training(section: Data) -> Data:
    small = _limited({key: value for key, value in section.items() if key != "epochs"}, "training")
    return small | {"steps": STEPS, "save_steps": 1, "num_workers": 0, "num_threads": 1}


def _evaluation(section: Data) -> Data:
    """Few and short answers; benchmarks lose their folders, for `moka eval --tiny` makes up others."""
    small = _limited({"batch_size": 2, "max_new_tokens": 4, **section}, "evaluation")
    if benchmarks := section.get("benchmarks"):
        kept = {
            name: {key: value for key, value in (one or {}).items() if key != "folder"}
            for name, one in benchmarks.items()
        }
        small["benchmarks"] = {
            name: {**one, "max_new_tokens": SMALL["evaluation"]["max_new_tokens"]} for name, one in kept.items()
        }
    return small


def _limited(section: Data, name: str) -> Data:
    """A section whose numbers are at most those of `SMALL`; it gets no keys that it does not have."""
    most = SMALL[name]
    return section | {key: min(section[key], most[key]) for key in most if section.get(key) is not None}
