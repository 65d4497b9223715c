"""Random chats: what is in them, and that the routing read from their ids is the layout."""

import pytest
import torch

from moka_peft import route
from moka_peft.analysis.speed import ChatLayout, ChatTokens, small_qwen2_5_vl
from moka_peft.analysis.speed.chat import modality_names


@pytest.mark.parametrize("alternating", [False, True])
@pytest.mark.parametrize(("turns", "modalities"), [(1, 2), (3, 3), (2, 8)])
def test_every_turn_has_its_media_and_instruction(turns, modalities, alternating):
    layout = ChatLayout(
        batch=2, length=301, turns=turns, instruction=16, modalities=modalities, alternating=alternating
    )
    chats = ChatTokens(range(1000), modalities)
    inputs = chats.write(layout)
    assert all(value.shape == (2, 301) for value in inputs.values())
    routing = route(inputs["input_ids"], chats.spec, inputs["attention_mask"])
    assert routing.modalities == modality_names(modalities) and not (routing.modality < 0).any()
    for turn, length in enumerate(layout.turn_lengths(), 1):
        media, instruction, _ = layout.parts(length)
        own = routing.turn == turn
        for index, count in enumerate(media, 1):
            assert (own & (routing.modality == index)).sum(1).tolist() == [count, count]
        assert (own & routing.is_instruction).sum(1).tolist() == [instruction, instruction]
    with_loss = inputs["labels"] != -100
    assert with_loss.any() and not (with_loss & (routing.turn > 0)).any()


def test_alternating_media_come_in_short_runs():
    chats, runs = ChatTokens(range(1000)), {}
    for alternating in (False, True):
        routing = chats.routing(ChatLayout(batch=1, length=1024, alternating=alternating))
        runs[alternating] = int((routing.modality[0].diff() != 0).sum())
    assert runs[False] <= 4 and runs[True] > 80


def test_a_seed_draws_the_same_chat_again():
    chats, layout = ChatTokens(range(1000)), ChatLayout(batch=1, length=64)
    first, again, other = (chats.write(layout, seed)["input_ids"] for seed in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_ids_that_a_model_gives_a_meaning_are_left_out():
    config = small_qwen2_5_vl(width=64, layers=1, vocabulary=64).config
    special = {config.image_token_id, config.video_token_id, config.get_text_config().eos_token_id}
    assert special and special.isdisjoint(ChatTokens.of(config).ids)


def test_a_chat_that_is_too_short_is_refused():
    with pytest.raises(ValueError, match="expected at least 20 tokens a turn for 3 modalities, got 30 for 2 turns"):
        ChatLayout(length=30, turns=2)
