"""The ways in which transformers generates. Each is compared with plain forwards on the whole, without a cache.

Where the base cannot take a path, or does not agree with its own recomputation there, the cell says so; where the
base can, the adapted model must.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from moka_peft import route
from moka_peft.tuner.channel import ATTRIBUTE

from .case import Case
from .layout import END, EOS, SEP, USER

NEW = 4
GREEDY = dict(do_sample=False, return_dict_in_generate=True, output_logits=True)
EQUAL = dict(
    rtol=1e-3, atol=1e-3
)  # logits near 1, through two caches and other shapes; wrong routing moves them by 0.1
Pairs = Iterator[tuple[Tensor, Tensor]]


def generated(case: Case, model: nn.Module, inputs: dict[str, Any], **options: Any) -> Any:
    """`generate` of the module that has the forward, with its output's logits."""
    return case.run(model).generate(**inputs, **{"max_new_tokens": NEW, **GREEDY, **options})


def recomputed(case: Case, model: nn.Module, inputs: dict[str, Tensor], sequences: Tensor, steps: int) -> Tensor:
    """Logits [B, steps, V] that one forward on `sequences` has for their last `steps` tokens."""
    with torch.no_grad():
        logits = case.run(model)(**case.extended(inputs, sequences)).logits
    return logits[:, -steps - 1 : -1]


def compared(case: Case, model: nn.Module, inputs: dict[str, Tensor], **options: Any) -> tuple[Tensor, Tensor]:
    out = generated(case, model, inputs, **options)
    steps = len(out.logits)
    return torch.stack(out.logits, 1), recomputed(case, model, inputs, out.sequences, steps)


def greedy(case: Case, model: nn.Module) -> Pairs:
    """Batches with and without media, padded on the left."""
    for rows in case.batches:
        yield compared(case, model, case.family.inputs(rows, padding_side="left"))


def without_cache(case: Case, model: nn.Module) -> Pairs:
    for rows in case.batches:
        yield compared(case, model, case.family.inputs(rows, padding_side="left"), use_cache=False)


def static_cache(case: Case, model: nn.Module) -> Pairs:
    for rows in case.batches:
        inputs = case.family.inputs(rows, padding_side="left")
        yield compared(case, model, inputs, cache_implementation="static")


def sampling(case: Case, model: nn.Module) -> Pairs:
    yield from with_and_without_cache(case, model, do_sample=True, num_return_sequences=2)


def beams(case: Case, model: nn.Module) -> Pairs:
    yield from with_and_without_cache(case, model, num_beams=3, num_return_sequences=2)


def with_and_without_cache(case: Case, model: nn.Module, **options: Any) -> Pairs:
    """What is drawn with one seed, or kept of several beams, is the same tokens."""
    options = {**options, "output_logits": False}
    for letter in case.family.media:
        # one medium a row: transformers repeats media one by one, which for other rows is another row's medium
        rows = [f"x{letter}y|pp|q", f"q{letter}wz"]
        inputs, found = case.family.inputs(rows, padding_side="left"), []
        for use_cache in (True, False):
            torch.manual_seed(0)
            found.append(generated(case, model, inputs, use_cache=use_cache, **options).sequences)
        yield found[0], found[1]


def chunked_prefill(case: Case, model: nn.Module) -> Pairs:
    """Chunks of five tokens, enlarged by the adapter where they would split a turn with media."""
    for row in case.media_rows:
        yield compared(case, model, case.family.inputs([f"wq|pp|{row}|q"]), prefill_chunk_size=5)


def prompt_lookup(case: Case, model: nn.Module) -> Pairs:
    for row in case.media_rows:
        yield compared(case, model, case.family.inputs([f"{row}pppz"]), prompt_lookup_num_tokens=3)


def assisted(case: Case, model: nn.Module) -> Pairs:
    """Another model of the family drafts, half right."""
    assistant = case.fresh_base()
    torch.manual_seed(0)
    for parameter in assistant.parameters():
        parameter.data += 0.1 * parameter.std(correction=0) * torch.randn_like(parameter)
    assistant = case.run(assistant)
    for row in case.media_rows:
        yield compared(case, model, case.family.inputs([row]), assistant_model=assistant)


def second_turn(case: Case, model: nn.Module) -> Pairs:
    """A conversation goes on from its cache, with text alone."""
    yield from continued(case, model, "")


def second_turn_with_media(case: Case, model: nn.Module) -> Pairs:
    """A conversation goes on from its cache, with another medium."""
    yield from continued(case, model, "medium")


def continued(case: Case, model: nn.Module, medium: str) -> Pairs:
    for letter in case.family.media:
        added = letter if medium else ""
        row = f"x{letter}y|p|q{added}zw"
        first, whole = case.family.inputs([f"x{letter}y"]), case.family.inputs([row])
        out = generated(case, model, first)
        new = whole["input_ids"][:, first["input_ids"].shape[1] + 2 :]  # without the layout's own answer
        ids = torch.cat([out.sequences, torch.tensor([[EOS]]), new], 1)
        assert new[0, :2].tolist() == [USER, SEP] and new[0, -1] == END
        kind, more = case.family.type_ids, case.family.row_media(row)[1:]
        both = {**whole, **case.extended(first, ids)}
        if kind is not None and kind in whole:
            both[kind][:, -new.shape[1] :] = whole[kind][:, -new.shape[1] :]
        both = {**both, **case.family.collate([case.family.row_media(row)])}
        now = {k: both[k] for k in ("input_ids", "attention_mask", kind) if k is not None}
        now |= case.family.collate([more]) if more else {}
        again = generated(case, model, now, past_key_values=out.past_key_values)
        yield torch.stack(again.logits, 1), recomputed(case, model, both, again.sequences, len(again.logits))


def embeddings(case: Case, model: nn.Module) -> Pairs:
    """`inputs_embeds` in place of ids, with the routing given by hand."""
    for row in case.media_rows:
        inputs = case.family.inputs([row])
        ids = inputs.pop("input_ids")
        embeds = case.run(model).get_input_embeddings()(ids)
        routed = {"routing": route(ids, case.family.spec)} if is_adapted(model) else {}
        with torch.no_grad():
            got = case.run(model)(**inputs, inputs_embeds=embeds, **routed).logits
            yield got, case.run(model)(**inputs, input_ids=ids).logits


def compiled(case: Case, model: nn.Module) -> Pairs:
    """One graph for the whole forward, media encoders included."""
    yield from compiled_forward(case.run(model), case.family.inputs(case.media_rows[:1]))


def compiled_decoder(case: Case, model: nn.Module) -> Pairs:
    """One graph for the text decoder, routed by its own ids."""
    names = ("input_ids", "attention_mask")
    inputs = {k: v for k, v in case.family.inputs(case.media_rows).items() if k in names}
    yield from compiled_forward(case.run(model).get_decoder(), inputs)


def compiled_forward(module: Any, inputs: dict[str, Tensor]) -> Pairs:
    torch.compiler.reset()
    run = torch.compile(module, fullgraph=True, backend="eager")
    with torch.no_grad():
        expected = module(**inputs, use_cache=False)[0]  # a first call sets things up that a graph cannot hold
        yield run(**inputs, use_cache=False)[0], expected
    torch.compiler.reset()


def compiled_training(case: Case, model: nn.Module) -> Pairs:
    """One graph for forward and backward of the text decoder in training."""
    torch.compiler.reset()
    decoder, names = case.run(model.train()).get_decoder(), ("input_ids", "attention_mask")
    inputs = {k: v for k, v in case.family.inputs(case.media_rows).items() if k in names}
    if not is_adapted(model):  # of the base alone, too, something must need a gradient
        decoder.layers.requires_grad_(True)
    norms = []
    for run in (decoder, torch.compile(decoder, fullgraph=True, backend="aot_eager")):
        model.zero_grad()
        run(**inputs, use_cache=False)[0].square().mean().backward()
        norms.append(torch.stack([p.grad.norm() for p in model.parameters() if p.grad is not None]))
    torch.compiler.reset()
    yield norms[1], norms[0]


def is_adapted(model: nn.Module) -> bool:
    return any(ATTRIBUTE in module.__dict__ for module in model.modules())


def take(path: Callable[[Case, nn.Module], Pairs], case: Case, **options: str) -> str | None:
    """Asserts that the adapted model is right, or else that the base is not either, and then says what that does.

    `options`: those of the adapter.
    """
    failure = failure_of(path, case, case.adapted(**options))
    if failure is None:
        return None
    base = failure_of(path, case, case.fresh_base())
    if base is None:
        raise failure
    return "base differs" if isinstance(base, AssertionError) else f"base refuses ({type(base).__name__})"


def failure_of(path: Callable[[Case, nn.Module], Pairs], case: Case, model: nn.Module) -> Exception | None:
    """What stops the path: an AssertionError where it disagrees with recomputation; None where it does not."""
    try:
        for got, expected in path(case, model):
            torch.testing.assert_close(got.float(), expected.float(), **EQUAL)
    except Exception as failure:  # transformers refuses in many ways
        torch.compiler.reset()
        return failure
    return None


COMPILED = (compiled, compiled_decoder, compiled_training)  # seconds each
PATHS: dict[str, Callable[[Case, nn.Module], Pairs]] = {
    "greedy": greedy,
    "no cache": without_cache,
    "static cache": static_cache,
    "sampling": sampling,
    "beams": beams,
    "chunked prefill": chunked_prefill,
    "prompt lookup": prompt_lookup,
    "assisted": assisted,
    "second turn": second_turn,
    "second turn, new medium": second_turn_with_media,
    "inputs_embeds": embeddings,
    "compiled decoder": compiled_decoder,
    "compiled training": compiled_training,
    "compiled whole": compiled,
}
