"""`moka route`: which tokens are which modality and turn, and what media attend to, before anything is trained."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from moka_peft import Routing, RoutingSpec


def run(
    target: Annotated[str, typer.Argument(help="model, adapter folder, or recipe (.yaml)")],
    question: Annotated[str | None, typer.Argument(help="what to ask; a recipe has samples of its own")] = None,
    image: Annotated[list[Path] | None, typer.Option(help="image file; may be given several times")] = None,
    audio: Annotated[list[Path] | None, typer.Option(help="recording; may be given several times")] = None,
    video: Annotated[list[Path] | None, typer.Option(help="video file; may be given several times")] = None,
    sample: Annotated[int, typer.Option(min=0, help="which of the recipe's training samples")] = 0,
    png: Annotated[Path | None, typer.Option(help="also draw it to this PNG file")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of the drawing.")] = False,
) -> None:
    """Draw a sample's tokens by modality and turn."""
    media = {"image": image or [], "audio": audio or [], "video": video or []}
    if Path(target).suffix in (".yaml", ".yml"):
        if question is not None or any(media.values()):
            raise typer.BadParameter("a recipe brings its own samples: leave the question and the files out")
        ids, mask, spec, tokenizer = _from_recipe(Path(target), sample)
    else:
        if question is None:
            raise typer.BadParameter("a question is missing: moka route MODEL [--image FILE] QUESTION")
        ids, mask, spec, tokenizer = _from_question(target, question, media)
    show(ids, mask, spec, tokenizer, png, as_json)


def _from_recipe(path: Path, index: int) -> tuple[Any, Any, "RoutingSpec", Any]:
    """Ids, mask, spec and tokenizer of one training sample, as its recipe's run would read it."""
    from moka_peft import RoutingSpec
    from moka_peft.data import BadSample
    from moka_peft.training import load_recipe, open_collator, open_source

    plan = load_recipe(path)
    samples = open_source(plan.data.train, plan.data)
    if index >= len(samples):
        raise ValueError(f"`sample` {index} does not exist: data.train of {path} has {len(samples)} samples.")
    processor, config = open_base(**plan.model.model_dump(exclude={"dtype", "start_from"}))
    drawn = samples[index]
    if isinstance(drawn, BadSample):
        raise ValueError(drawn.problem)
    batch = open_collator(plan, processor)([drawn])
    spec = RoutingSpec.from_pretrained(config, processor)
    return batch["input_ids"], batch["attention_mask"], spec, processor.tokenizer


def _from_question(name: str, question: str, media: dict[str, list[Path]]) -> tuple[Any, Any, "RoutingSpec", Any]:
    from moka_peft.data import Collator, Sample

    parts = [{"type": kind, kind: str(path)} for kind, paths in media.items() for path in paths]
    asked = {"role": "user", "content": [*parts, {"type": "text", "text": question}]}
    processor, spec = _open(name)
    batch = Collator(processor).collate_prompts([Sample("question", [asked, {"role": "assistant", "content": ""}])])
    return batch["input_ids"], batch["attention_mask"], spec, processor.tokenizer


def _open(name: str) -> tuple[Any, "RoutingSpec"]:
    """Processor and spec of a model or of an adapter folder, whose own come first; loads no weights."""
    from peft import PeftConfig
    from transformers import AutoProcessor

    from moka_peft import RoutingSpec
    from moka_peft.training.model import base_of

    folder = Path(name)
    if not (folder / "adapter_config.json").is_file():
        processor, config = open_base(name)
        return processor, RoutingSpec.from_pretrained(config, processor)
    adapter = PeftConfig.from_pretrained(name)
    processor, config = open_base(**{key: value for key, value in base_of(folder).items() if key != "dtype"})
    if (folder / "processor_config.json").is_file():
        processor = AutoProcessor.from_pretrained(folder)
    return processor, getattr(adapter, "routing", None) or RoutingSpec.from_pretrained(config, processor)


def open_base(name: str | None = None, revision: str | None = None, **parts: Any) -> tuple[Any, Any]:
    """Processor and configuration of a base model, or of the parts of a composite; loads no weights."""
    from transformers import AutoConfig

    from moka_peft.composite import tiny_avt_config, tiny_avt_processor
    from moka_peft.training import load_processor
    from moka_peft.training.composite_parts import open_composite

    if name is None:
        model, processor = open_composite(**parts, weights=False)
        return processor, model.config
    if name == "tiny-avt":
        return tiny_avt_processor(), tiny_avt_config()
    return load_processor(name, revision), AutoConfig.from_pretrained(name, revision=revision)


def show(
    ids: Any, mask: Any, spec: "RoutingSpec", tokenizer: Any, png: Path | None = None, as_json: bool = False
) -> None:
    """Draws the first row's tokens by modality and turn, on the terminal or as JSON, and to a PNG file if asked."""
    from rich.console import Console

    from moka_peft import route
    from moka_peft.routing.draw import draw_routing
    from moka_peft.routing.picture import save_routing_png

    routing = route(ids, spec, mask)
    tokens = [token_texts(tokenizer, row) for row in ids.tolist()]
    if as_json:
        print(json.dumps(as_dict(routing, tokens)))
    else:
        Console().print(draw_routing(routing, tokens))
    if png is not None:
        save_routing_png(routing, tokens, png)


def token_texts(tokenizer: Any, ids: list[int]) -> list[str]:
    """Each token as text, with the space in front of a word that decoding a single token may drop."""
    pieces = zip(tokenizer.convert_ids_to_tokens(ids), map(tokenizer.decode, ids), strict=True)
    return [f" {text}" if piece.startswith("\u2581") and text[:1] != " " else text for piece, text in pieces]


def as_dict(routing: "Routing", tokens: list[list[str]]) -> dict[str, Any]:
    """The first row of a routing for other programs: per token, and per span with the keys of media."""
    from moka_peft.routing.spans import count_media, keys_of, modality_names, spans_of

    names, spans = modality_names(routing), spans_of(routing)
    with_keys, media = count_media(routing)
    return {
        "modalities": list(names),
        "tokens": tokens[0],
        "modality": routing.modality[0].tolist(),
        "turn": routing.turn[0].tolist(),
        "spans": [
            {
                "modality": names[span.modality],
                "turn": span.turn,
                "start": span.start,
                "stop": span.stop,
                "keys": keys_of(span, spans, tokens[0]) if span.is_media else None,
            }
            for span in spans
        ],
        "media_tokens": media,
        "media_tokens_with_keys": with_keys,
    }
