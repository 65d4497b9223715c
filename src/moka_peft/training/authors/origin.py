"""What an imported adapter was called at home: kept beside it, so that an export writes the same keys again."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

ORIGIN = "authors.json"
STEMS = {"avt": "base_model.model.model.layers", "vt": "base_model.model.model.language_model.layers"}
MODULES = {
    "avt": {"vision_projector": "vl_projector", "audio_projector": "al_projector"},
    "vt": {"vision_projector": "multi_modal_projector"},
}


@dataclass(frozen=True)
class Origin:
    """form: a name of `FORMS`. stem: the keys' path to the layers. name: PEFT's name of the adapter where keys held it.
    modules: their names of the projectors, by ours. config: their adapter_config.json, empty where there was none."""

    form: str
    stem: str
    name: str = ""
    modules: dict[str, str] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        (folder / ORIGIN).write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")


def origin_of(folder: Path, form: str, *, is_composite: bool) -> Origin:
    """The origin that an import noted in `folder`; for an adapter that was trained here, or one that becomes another
    form, what the authors' own models would write."""
    if (folder / ORIGIN).is_file():
        noted = _read(folder / ORIGIN)
        if noted.form == form:
            return noted
    return Origin(form, STEMS[form] if is_composite else STEMS["avt"], modules=MODULES[form])


def _read(path: Path) -> Origin:
    try:
        return Origin(**json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise ValueError(f"`source`: {path} is not what an import wrote: {error}. Delete it or import anew.") from error
