"""Derives a RoutingSpec from a model's config and its chat template, and holds it against what was rendered."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from .delimiters import find_delimiters
from .derivation import check_spec, derive_spec
from .expansion import media_expansions, with_siblings
from .placeholders import KNOWN_KINDS, media_token_ids, placeholders_by_modality, token_ids
from .rendering import render_conversations
from .single_turn import derive_single_turn
from .spec import RoutingSpec, SkipItem

PARTS = ("image", "video", "audio")  # kinds of content part that chat templates know
MARKER = re.compile(rf"({'|'.join(KNOWN_KINDS)})_(start|end|begin|bos|eos|break|newline)|(bo|eo)[iav]")


def spec_from_pretrained(model: Any, processor: Any) -> RoutingSpec:
    """The spec of `model` (a model or its config) with the chat template of `processor` (or a tokenizer).

    A system prompt, or the definitions of tools, that a template writes into the user turn without marks of its own
    reads as instruction. The result of a tool never does: where a template writes it into a user turn, that turn has
    a number of its own and no instruction.
    A template that refuses a second turn gives a spec with `answer_start`, or with placeholders alone where nothing
    marks the answer: then the prompt ends the instruction.
    Delimiters that users type are read as the tokenizer reads them: as a special token, a typed close ends the
    instruction of its own turn, and other turns and rows stay as they are; split into pieces
    (`split_special_tokens=True`, `sanitize_control_tokens=True`), they are instruction like other words.
    Raises ValueError, naming the template, where the config has no placeholder or the tokenizer no offsets, where
    the template marks no user turns or no results of tools inside them, or where a rendered span differs from what
    the spec finds.
    """
    config = getattr(model, "config", model)
    template = template_name(processor)
    tokens = media_tokens(config, processor)
    tokenizer = _fast_tokenizer(processor, template, _by_hand(tokens))
    media = {kind: token for kind, token in tokens.items() if _is_written(token, tokenizer)}
    if not media:
        raise ValueError(
            f"`config` of {type(model).__name__} has no media placeholder: expected image_token_id, video_token_id, "
            f"audio_token_id or another <media>_token_id that the tokenizer of {template} knows. {_by_hand(media)}"
        )
    try:
        markers = {name: token for name, token in token_ids(config).items() if _is_written(token, tokenizer)}
        spec = _probe(processor, tokenizer, media, markers)
    except Exception as error:  # a template may raise anything; the message says whose template it was
        raise ValueError(f"`chat_template` of {template} gives no routing spec: {error}. {_by_hand(media)}") from error
    return replace(spec, template=template)


def _by_hand(media: dict[str, int]) -> str:
    """How to go on without a derived spec."""
    placeholders = placeholders_by_modality(media) or "{'visual': (image_token_id,)}"
    return (
        f"Pass a spec of your own: MokaConfig(routing=RoutingSpec(placeholders={placeholders}, user_open=((...),), "
        "user_close=((...),))); for prompts without turns, answer_start=((...),): the tokens where the answer begins."
    )


def template_name(processor: Any) -> str:
    """The processor's class and where its tokenizer came from, for messages."""
    path = getattr(getattr(processor, "tokenizer", processor), "name_or_path", "")
    return f"{type(processor).__name__} ({path})" if path else type(processor).__name__


def media_tokens(config: Any, processor: Any) -> dict[str, int]:
    """Kind of media -> id of its placeholder; an unknown kind counts where config and processor both have it."""
    return {
        kind: token
        for kind, token in media_token_ids(config).items()
        if kind in KNOWN_KINDS or hasattr(processor, f"{kind}_token")
    }


def _is_written(token: int, tokenizer: Any) -> bool:
    """Whether the tokenizer has this id: some configs keep ids of media that the model does not take."""
    return token >= 0 and tokenizer.convert_ids_to_tokens(token) is not None


def _fast_tokenizer(processor: Any, template: str, by_hand: str) -> Any:
    tokenizer = getattr(processor, "tokenizer", processor)
    if not getattr(tokenizer, "is_fast", False):
        raise ValueError(
            f"`tokenizer` of {template} gives no character offsets: expected a fast tokenizer, "
            f"got {type(tokenizer).__name__}. {by_hand}"
        )
    if not getattr(processor, "chat_template", None) and not getattr(tokenizer, "chat_template", None):
        raise ValueError(f"`chat_template` of {template} is missing: user turns cannot be told apart. {by_hand}")
    return tokenizer


def _probe(processor: Any, tokenizer: Any, media: dict[str, int], named: dict[str, int]) -> RoutingSpec:
    texts = {kind: tokenizer.convert_ids_to_tokens(token) for kind, token in media.items()}
    parts = {kind: text for kind, text in texts.items() if kind in PARTS or kind not in KNOWN_KINDS}
    expansions = media_expansions(processor, tokenizer, parts)
    whole = [added.content for added in tokenizer.added_tokens_decoder.values()]
    try:
        renderings = render_conversations(processor, tokenizer, parts, expansions)
    except Exception:  # the template refuses a second turn, each in its own way
        renderings = render_conversations(processor, tokenizer, parts, expansions, single=True)
        return derive_single_turn(renderings, placeholders_by_modality(media), whole)
    if not renderings:
        raise ValueError("it leaves out or rewrites what the user says")
    special = {token: added.content for token, added in tokenizer.added_tokens_decoder.items() if added.special}
    ends = [text for text in (tokenizer.eos_token, tokenizer.bos_token) if text]
    delimiters = find_delimiters(renderings, whole, ends)
    spec = derive_spec(renderings, delimiters, placeholders_by_modality(media), special, _video_frames(named))
    found = {item for item in spec.skip if isinstance(item, int)}
    if not any({*media.values(), *found} & set(rendering.ids) for rendering in renderings):
        raise ValueError(f"it writes nothing for media: expected {' or '.join(texts.values())} in the text")
    markers = {token for name, token in named.items() if MARKER.fullmatch(name)}
    around = sorted(with_siblings({*markers, *found}, special))
    spec = replace(spec, skip=(*around, *(item for item in spec.skip if not isinstance(item, int))))
    check_spec(spec, renderings, delimiters, special)
    return spec


def _video_frames(named: dict[str, int]) -> SkipItem | None:
    """Everything in a video that has a start and an end of its own: some processors write times between frames."""
    start, end = named.get("video_start"), named.get("video_end")
    return ((start,), (end,)) if start is not None and end is not None else None
