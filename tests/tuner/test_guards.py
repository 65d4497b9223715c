"""The three traps: loss on the instruction, media whose turn is still open, a spec that fits nothing."""

import logging

import pytest
import torch
from peft import get_peft_model
from transformers import LlamaForTokenClassification

from moka_peft import MokaConfig, RoutingSpec, media_with_keys, use_routing

WORDS = 16
ENTROPY = torch.tensor(float(WORDS)).log().item()


def unpredictable_chats(generator, count=64):
    """USER SEP image word END: nothing before the word tells which of the 16 it is."""
    word = torch.randint(10, 10 + WORDS, (count, 1), generator=generator)
    return torch.cat([torch.tensor([[2, 3, 50]]).expand(count, 3), word, torch.full((count, 1), 4)], 1)


def instruction_loss_after_training(tiny_lm, spec, **options):
    """Trains adapter and base on the full sequence; the cross-entropy of fresh instruction words."""
    torch.manual_seed(0)
    config = MokaConfig(r=16, lora_alpha=32, modalities=("text", "visual", "audio"), routing=spec, **options)
    model = get_peft_model(tiny_lm(), config).train().requires_grad_(True)
    optimizer = torch.optim.Adam(model.parameters(), 5e-3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(120):
        ids = unpredictable_chats(generator)
        optimizer.zero_grad()
        model(ids, labels=ids.masked_fill(ids == 50, -100)).loss.backward()
        optimizer.step()
    ids = unpredictable_chats(generator)
    return torch.nn.functional.cross_entropy(model(ids).logits[:, 2], ids[:, 3]).item()


def test_leak_shows_where_the_guard_is_off(tiny_lm, spec, monkeypatch):
    """The image attends to the word after it and hands it to the position that predicts it."""
    monkeypatch.setattr("moka_peft.tuner.guards.check_supervised_instruction", lambda *_: None)
    assert instruction_loss_after_training(tiny_lm, spec) < 0.1 * ENTROPY


@pytest.mark.parametrize("options", [{"supervised_instruction": "ignore"}, {"interaction": "none"}], ids=str)
def test_leak_is_gone(tiny_lm, spec, options):
    assert instruction_loss_after_training(tiny_lm, spec, **options) > 0.97 * ENTROPY


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
    with pytest.raises(ValueError, match=r"in the first 8 training forwards with media.*One row: text x3, visual x2"):
        model(ids)


def test_share_of_media_with_keys_is_logged(adapted, chat, caplog):
    model = adapted().train()
    with caplog.at_level(logging.INFO, logger="moka_peft"):
        model(torch.cat([chat("vvxyz", "p"), chat("vvv", "ppq")]))
    assert "2 of 5 media tokens have an instruction" in caplog.text
    assert media_with_keys(model) == {"default": 0.4}


def cross_entropy(logits, labels):
    return torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())


@pytest.mark.parametrize("kept", [0, 9, torch.arange(9)], ids=["all", "last", "chosen"])
def test_loss_computed_outside_the_model_raises_at_the_backward(adapted, chat, kept):
    model, ids = adapted().train(), chat("vvxyz", "pp")
    columns = kept if isinstance(kept, torch.Tensor) else slice(-kept, None)
    loss = cross_entropy(model(ids, logits_to_keep=kept).logits, ids[:, columns])
    with pytest.raises(ValueError, match="3 instruction tokens carry loss.*outside the model"):
        loss.backward()


def test_a_token_that_is_certain_already_hides_no_other(adapted, chat):
    model, ids = adapted().train(), chat("vvxyz", "pp")
    certain = torch.zeros(model.config.vocab_size).index_fill(0, ids[0, 5], 60.0)
    logits = model(ids).logits + certain * (torch.arange(ids.shape[1]) == 4).unsqueeze(1)
    with pytest.raises(ValueError, match="2 instruction tokens carry loss"):
        cross_entropy(logits, ids).backward()


def test_distillation_is_left_alone_on_few_instruction_tokens(adapted, tiny_lm, chat):
    model, ids = adapted().train(), chat("vvx", "pp")
    for seed in range(10):  # some of these teachers like the one token better than the student does
        with torch.no_grad():
            wanted = tiny_lm(seed)(ids).logits.softmax(-1)
        torch.nn.functional.kl_div(model(ids).logits.log_softmax(-1), wanted, reduction="batchmean").backward()


def test_a_head_with_few_classes_per_token_is_left_alone(adapted, tiny_lm, chat):
    config = tiny_lm().config
    config.num_labels = 2
    model, ids = adapted(base=LlamaForTokenClassification(config)).train(), chat("vvxyz", "pp")
    cross_entropy(model(ids).logits, torch.ones_like(ids)).backward()


def test_other_losses_on_all_positions_are_left_alone(adapted, chat):
    model, ids = adapted().train(), torch.cat([chat("vvxyz", "pp"), chat("vvxyz", "mq")])
    model(ids).logits.square().mean().backward()
    answer = ids.masked_fill(torch.arange(ids.shape[1]) < 9, -100)
    cross_entropy(model(ids).logits, answer).backward()
    chosen, rejected = (cross_entropy(rows, ids[:1]) for rows in model(ids).logits.split(1))
    (chosen - rejected).backward()
    text_only = chat("xyz", "pp")
    cross_entropy(model(text_only).logits, text_only).backward()
    cross_entropy(adapted(interaction="none").train()(ids).logits, ids).backward()


def test_ignore_takes_the_gradient_of_the_instruction_out(adapted, chat):
    ids = chat("vvxyz", "pp")
    read = (torch.arange(ids.shape[1]) >= 5) & (torch.arange(ids.shape[1]) < 8)
    gradients = {}
    for name, labels in {"all": ids, "masked": ids.masked_fill(read, -100)}.items():
        model = adapted(supervised_instruction="ignore").train()
        loss = cross_entropy(model(ids).logits, labels) * (labels[:, 1:] != -100).sum()
        loss.backward()
        gradients[name] = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    assert gradients["all"].keys() == gradients["masked"].keys()
    for name, gradient in gradients["masked"].items():
        torch.testing.assert_close(gradients["all"][name], gradient)


def test_rows_split_over_processes_are_refused(adapted, chat):
    ids = chat("vvxyz", "pp")
    with pytest.raises(ValueError, match="`shift_labels`: this forward holds a part of each row"):
        adapted().train()(ids, shift_labels=ids)
