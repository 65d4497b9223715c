"""The three traps: loss on the instruction, media whose turn is still open, a spec that fits nothing."""

import logging

import pytest
import torch
from peft import get_peft_model

from moka_peft import MokaConfig, Routing, RoutingSpec, media_with_keys, use_routing

IMAGES, WORDS = 6, 5


def unpredictable_chats(count, generator):
    """Images, then instruction tokens nothing can predict."""
    words = torch.randint(10, 42, (count, WORDS), generator=generator)
    fixed = {name: torch.full((count, n), t) for name, (n, t) in {"open": (1, 2), "sep": (1, 3), "end": (1, 4)}.items()}
    images = torch.full((count, IMAGES), 50)
    return torch.cat([fixed["open"], fixed["sep"], images, words, fixed["end"]], 1)


def train_on_instruction(model, steps=150):
    """Full-sequence loss over the instruction tokens; returns the mean of the last 20 losses."""
    generator = torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], 0.02)
    losses = []
    for _ in range(steps):
        ids = unpredictable_chats(32, generator)
        labels = ids.masked_fill((ids < 10) | (ids == 50), -100)
        routing = None if model.peft_config["default"].interaction == "none" else forced_routing(ids)
        loss = model(ids, labels=labels, **({"routing": routing} if routing else {})).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return sum(losses[-20:]) / 20


def forced_routing(ids):
    modality = (ids == 50).long()
    turn = ((ids == 50) | ((ids >= 10) & (ids < 50))).long()
    return Routing(modality, turn)


def leak_model(tiny_lm, spec, **options):
    torch.manual_seed(0)
    config = MokaConfig(r=8, lora_alpha=16, modalities=("text", "visual", "audio"), routing=spec, **options)
    return get_peft_model(tiny_lm(), config).train()


@pytest.fixture
def unguarded(monkeypatch):
    monkeypatch.setattr("moka_peft.tuner.guards._check_supervised_instruction", lambda *_: None)


ENTROPY = torch.tensor(32.0).log().item()  # of a token drawn from 32


def test_leak_shows_when_the_guard_is_off(tiny_lm, spec, unguarded):
    """Media before the instruction hand it to the positions that predict it: the loss falls under the entropy."""
    assert train_on_instruction(leak_model(tiny_lm, spec)) < 0.7 * ENTROPY


def test_no_leak_without_interaction(tiny_lm, spec):
    assert train_on_instruction(leak_model(tiny_lm, spec, interaction="none"), steps=60) > 0.97 * ENTROPY


def test_instruction_with_loss_raises_and_says_how_many(adapted, chat):
    model, ids = adapted().train(), chat("vvxyz", "pp")
    with pytest.raises(ValueError, match="3 instruction tokens carry loss.*supervised_instruction='ignore'"):
        model(ids, labels=ids)
    text_only = chat("xyz", "pp")
    model(text_only, labels=text_only)
    adapted(interaction="none")(ids, labels=ids)


def test_ignore_takes_the_instruction_out_of_the_loss(adapted, spec, chat):
    ids = chat("vvxyz", "pp")
    labels = ids.clone()
    model = adapted(supervised_instruction="ignore")
    loss = model(ids, labels=labels).loss
    assert torch.equal(labels, ids)  # the caller's labels stay
    masked = labels.masked_fill((torch.arange(ids.shape[1]) >= 5) & (torch.arange(ids.shape[1]) < 8), -100)
    assert torch.equal(loss, adapted()(ids, labels=masked).loss)


def test_ignore_removes_the_leak(tiny_lm, spec):
    model = leak_model(tiny_lm, spec, supervised_instruction="ignore")
    ids = unpredictable_chats(4, torch.Generator().manual_seed(0))
    labels = ids.masked_fill(ids < 10, -100)
    logits = model(ids, labels=labels).logits
    kept = labels.masked_fill((ids >= 10) & (ids < 50), -100)
    expected = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), kept[:, 1:].flatten())
    torch.testing.assert_close(model(ids, labels=labels).loss, expected)


def test_open_turn_in_a_cache_raises(adapted, chat):
    model, ids = adapted(), chat("vvxyz")
    with pytest.raises(ValueError, match="row 0: 2 media tokens enter the cache, but their user turn is not complete"):
        model(ids[:, :-1], use_cache=True)
    with pytest.raises(ValueError, match="user turn is not complete"):
        model.generate(input_ids=ids[:, :-1], max_new_tokens=1)
    model(ids, use_cache=True)
    model(chat("xyz")[:, :-1], use_cache=True)  # no media: nothing is lost
    model.train()(ids[:, :-1])  # no cache: nothing is kept


def test_media_whose_turn_began_in_an_earlier_forward_raise(adapted, chat):
    model, ids = adapted(), chat("xyvvz")
    cache = model(ids[:, :5], use_cache=True).past_key_values
    with pytest.raises(ValueError, match="2 media tokens enter the cache"):
        model(ids[:, 5:], past_key_values=cache, use_cache=True)


def test_allow_open_turn_leaves_media_unenriched(adapted, spec, chat):
    model, ids = adapted(), chat("vvxyz")[:, :5]
    plain = adapted(interaction="none")(ids, use_cache=True).logits
    assert torch.equal(model(ids, use_cache=True, allow_open_turn=True).logits, plain)
    with use_routing(model, None, allow_open_turn=True):
        assert torch.equal(model(ids, use_cache=True).logits, plain)
    model.generate(input_ids=ids, max_new_tokens=1, allow_open_turn=True)


def test_spec_that_fits_nothing_is_found_out(adapted, chat):
    wrong = RoutingSpec(placeholders={"visual": (50,), "audio": (60,)}, user_open=((98, 99),), user_close=((4,),))
    model, ids = adapted(routing=wrong).train(), chat("vvxyz", "pp")
    for _ in range(7):
        model(ids)
    model(chat("xyz"))  # no media: does not count
    with pytest.raises(ValueError, match=r"in the first 8 training forwards with media.*One row: tx3 visualx2"):
        model(ids)


def test_share_of_media_with_keys_is_logged(adapted, chat, caplog):
    model = adapted().train()
    with caplog.at_level(logging.INFO, logger="moka_peft"):
        model(torch.cat([chat("vvxyz", "p"), chat("vvv", "ppq")]))
    assert "2 of 5 media tokens have an instruction" in caplog.text
    assert media_with_keys(model) == {"default": 0.4}
