"""Generation: a cache, padding, beams and batches change nothing, and media are encoded once."""

import pytest
import torch

from .conftest import AUDIO_ID, IMAGE_ID, VIDEO_ID

GREEDY = {"max_new_tokens": 5, "min_new_tokens": 5, "do_sample": False}


@pytest.mark.parametrize("use_cache", [True, False])
def test_media_are_encoded_once(composite, inputs, use_cache):
    calls = []
    for part in (composite.vision_encoder, composite.audio_encoder):
        part.register_forward_hook(lambda module, *_: calls.append(module))
    composite.generate(**inputs("iat"), **GREEDY, use_cache=use_cache)
    assert len(calls) == 2


@pytest.mark.parametrize("cache", [{"use_cache": True}, {"cache_implementation": "static"}])
def test_a_cached_generation_equals_a_recomputed_one(composite, inputs, cache):
    batch = inputs("tiatt", "vt")
    steps = {"output_logits": True, "return_dict_in_generate": True, **GREEDY}
    recomputed = composite.generate(**batch, **steps, use_cache=False)
    cached = composite.generate(**batch, **steps, **cache)
    assert torch.equal(cached.sequences, recomputed.sequences)
    torch.testing.assert_close(torch.stack(cached.logits), torch.stack(recomputed.logits), rtol=1e-5, atol=1e-5)


def test_a_left_padded_batch_equals_its_rows_alone(composite, inputs):
    batch, width = inputs("itttat", "ivt", "t"), 5
    together = composite.generate(**batch, **GREEDY)[:, -width:]
    starts = {"pixel_values": [(0, 1), (1, 2), (2, 2)], "pixel_values_videos": [(0, 0), (0, 2), (2, 2)]}
    starts["input_features"] = [(0, 1), (1, 1), (1, 1)]
    for row in range(3):
        keep = batch["attention_mask"][row].bool()
        alone = {name: batch[name][row, keep][None] for name in ("input_ids", "attention_mask")}
        alone |= {n: batch[n][slice(*spans[row])] for n, spans in starts.items() if spans[row][0] < spans[row][1]}
        assert torch.equal(composite.generate(**alone, **GREEDY)[0, -width:], together[row])


def test_beams_keep_each_rows_media(composite, inputs):
    batch = inputs("iit", "it")
    beams = {"num_beams": 3, "num_return_sequences": 2, "return_dict_in_generate": True, "output_scores": True}
    found = composite.generate(**batch, **GREEDY, **beams)
    images_of = [batch["pixel_values"][:2], batch["pixel_values"][2:]]
    for index, sequence in enumerate(found.sequences):
        ids = sequence[sequence != 0][None]
        logits = composite(input_ids=ids, pixel_values=images_of[index // 2]).logits
        chosen = logits.log_softmax(-1)[:, :-1].gather(-1, ids[:, 1:, None])[0, -5:]
        torch.testing.assert_close(found.sequences_scores[index].double(), chosen.mean(), rtol=1e-6, atol=1e-6)


def test_the_root_forward_sees_input_ids_at_every_step(composite, inputs):
    widths = []
    composite.register_forward_pre_hook(
        lambda _, args, kwargs: widths.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    composite.generate(**inputs("iat"), **GREEDY)
    assert widths == [(1, 11)] + [(1, 1)] * 4


def test_a_placeholder_is_never_generated(composite, inputs):
    with torch.no_grad():
        composite.get_output_embeddings().weight[[IMAGE_ID, VIDEO_ID, AUDIO_ID]] *= 100
    new = composite.generate(**inputs("t"), **GREEDY)[0, 2:]
    assert not set(new.tolist()) & {IMAGE_ID, VIDEO_ID, AUDIO_ID}


def test_generation_from_embeddings_equals_that_from_ids(composite, inputs):
    batch = inputs("ttt")
    embeds = composite.get_input_embeddings()(batch["input_ids"])
    expected = composite.generate(**batch, **GREEDY)[:, -5:]
    assert torch.equal(composite.generate(inputs_embeds=embeds, **GREEDY), expected)


def test_a_prefill_in_chunks_is_refused(composite, inputs):
    with pytest.raises(ValueError, match="nor split them|cannot split"):
        composite.generate(**inputs("tittt"), **GREEDY, prefill_chunk_size=3)
