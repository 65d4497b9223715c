"""Activations counted on the meta device against what a real step on the CPU keeps and allocates."""

from __future__ import annotations

import gc

import pytest
import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode

from moka_peft.analysis.speed.kept import saved_tensors
from moka_peft.composite import CompositeConfig
from moka_peft.training.activations import enable_checkpointing
from moka_peft.training.plan.architecture import adapted, build_on
from moka_peft.training.plan.live import LiveBytes
from moka_peft.training.plan.media import media_of, tokens_of
from moka_peft.training.plan.step import Batch, count_activations, routing_of_rows
from moka_peft.training.recipe import Adapter
from moka_peft.tuner.config import RoutedConfig

ROWS, FRAMES, SEGMENTS, SECONDS = 2, 3, 2, 2.0
HALF = "bfloat16"
METHODS = [("lora", False), ("lora", True), ("moka", False), ("moka", True), ("lora_moe", True), ("imod", False)]
"""With and without gradient checkpointing."""


def config() -> CompositeConfig:
    text = dict(model_type="llama", vocab_size=500, hidden_size=256, intermediate_size=688, num_hidden_layers=2)
    text |= dict(num_attention_heads=4, num_key_value_heads=2, pad_token_id=0, bos_token_id=1, eos_token_id=2)
    vision = dict(model_type="clip_vision_model", hidden_size=64, intermediate_size=128, num_hidden_layers=2)
    vision |= dict(num_attention_heads=2, image_size=56, patch_size=14)
    audio = dict(model_type="beats", encoder_layers=2, encoder_embed_dim=48, embed_dim=32, encoder_ffn_embed_dim=96)
    audio |= dict(encoder_attention_heads=4, conv_pos_groups=4)
    return CompositeConfig(
        text_config=text,
        vision_config=vision,
        audio_config=audio,
        vision_projector={"type": "qformer", "num_queries": 8, "hidden_size": 96, "intermediate_size": 192},
        audio_projector={"type": "mlp"},
        image_token_id=497,
        video_token_id=498,
        audio_token_id=499,
    )


def build(device: str, method: str):
    torch.manual_seed(0)
    base = build_on(device, config(), HALF)
    return adapted(base, Adapter(method=method, r=4).model_dump(), ["projectors"])


def batch(model, text: int, *, padded: bool) -> Batch:
    base = model.get_base_model()
    units = {"video": FRAMES, "audio": SEGMENTS}
    tokens = {kind: units[kind] * tokens_of(base, kind, SECONDS) for kind in units}
    media = {k: media_of(k, ROWS * n, base.config, SECONDS, base.device, base.dtype) for k, n in units.items()}
    return Batch(ROWS, text + sum(tokens.values()), media, tokens, padded)


def inputs(model, batch: Batch) -> dict:
    """The same batch as a model takes it; the last row is a token shorter where rows are padded."""
    ids, start = torch.full((batch.rows, batch.length), 5), 1
    for kind, count in batch.tokens.items():
        ids[:, start : start + count] = {"video": 498, "audio": 499}[kind]
        start += count
    names = {"video": "pixel_values_videos", "audio": "input_features"}
    answer = torch.arange(batch.length) > (start + batch.length) // 2  # behind the instruction
    given = {"input_ids": ids, "labels": ids.where(answer, -100), "use_cache": False}
    if batch.masked:
        mask = torch.ones_like(ids)
        mask[-1, -1] = 0
        given["attention_mask"] = mask
    if isinstance(model.peft_config["default"], RoutedConfig):
        given["routing"] = routing_of_rows(batch, model.peft_config["default"].modalities)
    return given | {names[kind]: media for kind, media in batch.media.items()}


class _AddsAsOnGpu(TorchDispatchMode):
    """Sums of two dtypes without the CPU's whole copy of the narrower one: a GPU's kernel converts as it adds."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is not torch.ops.aten.add.Tensor or kwargs or not all(map(torch.is_tensor, args)):
            return func(*args, **(kwargs or {}))
        wide, narrow = sorted(args, key=lambda tensor: tensor.element_size(), reverse=True)
        if wide.dtype == narrow.dtype or wide.shape != narrow.shape:
            return func(*args)
        total = wide.clone()
        for rows, others in zip(total.flatten(0, -2).split(64), narrow.flatten(0, -2).split(64), strict=True):
            rows.add_(others)
        return total


def real_peak(step) -> int:
    """The most that torch's allocator held in `step`."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled, _AddsAsOnGpu():
        step()
    events = [e for e in profiled.profiler.kineto_results.events() if e.name() == "[memory]"]
    held = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        most = max(most, held)
    return most


def known(model, given: dict) -> list[torch.Tensor]:
    return [*model.parameters(), *model.buffers(), *(v for v in given.values() if torch.is_tensor(v))]


def kept_bytes_of(model, given: dict) -> int:
    """What autograd saves in a real forward."""
    left_out = {tensor.untyped_storage()._cdata for tensor in known(model, given)}
    saved = saved_tensors(lambda: model(**given).loss)
    return sum(t.untyped_storage().nbytes() for t in saved if t.untyped_storage()._cdata not in left_out)


def live_bytes_of(model, given: dict) -> int:
    """What a real forward leaves: with checkpointing, autograd does not save the layers' inputs."""
    with LiveBytes(known(model, given)) as live:
        loss = model(**given).loss
        left = live.now
    del loss
    return left


@pytest.fixture(scope="module", params=METHODS, ids=str)
def pair(request):
    """A model on the meta device, the same on the CPU, and whether both compute layers again in the backward."""
    method, checkpointing = request.param
    planned, model = build("meta", method), build("cpu", method)
    if checkpointing:
        enable_checkpointing(model.get_base_model())
    return planned, model.train(), checkpointing


@pytest.mark.parametrize(("text", "padded", "autocast"), [(100, False, None), (300, True, None), (300, True, HALF)])
def test_a_planned_forward_keeps_what_a_real_one_does(pair, text, padded, autocast):
    """On the CPU an operator here or there is another one: rows of media are found by runs, masks built otherwise."""
    planned, model, checkpointing = pair
    found = count_activations(
        planned, batch(planned, text, padded=padded), checkpointing=checkpointing, autocast=autocast
    )
    given = inputs(model, batch(model, text, padded=padded))
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast is not None):
        model(**given)  # makes what later forwards share
        real = live_bytes_of(model, given) if checkpointing or autocast else kept_bytes_of(model, given)
    kept = found.projectors + found.decoder + found.logits
    assert kept == pytest.approx(real, rel=0.04 if checkpointing else 0.01)


def test_a_planned_step_needs_what_the_allocator_gives_a_real_one(pair):
    planned, model, checkpointing = pair
    found = count_activations(planned, batch(planned, 300, padded=True), checkpointing=checkpointing)
    given = inputs(model, batch(model, 300, padded=True))
    model(**given).loss.backward()
    model.zero_grad()
    gc.collect()  # what only a cycle still holds would count as given back
    real = real_peak(lambda: model(**given).loss.backward())
    gradients = sum(weight.grad.nbytes for weight in model.parameters() if weight.grad is not None)
    model.zero_grad()
    assert found.with_gradients == pytest.approx(real, rel=0.02)
    assert found.peak <= found.with_gradients <= found.peak + gradients


def test_trained_projectors_and_longer_rows_hold_more():
    model = build("meta", "moka")
    short, long = (count_activations(model, batch(model, text, padded=False)) for text in (100, 300))
    assert long.decoder > 1.5 * short.decoder
    for name, weight in model.named_parameters():
        if "projector" in name:
            weight.requires_grad_(False)
    frozen = count_activations(model, batch(model, 100, padded=False))
    rows = 2 * (100 + FRAMES * 8 + SEGMENTS * 96) * 256 * 2  # the embeddings of tokens, bfloat16
    assert frozen.projectors < 3 * rows < short.projectors
