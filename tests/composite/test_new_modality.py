"""The page on adding a modality, run as it stands: four modalities are routed, trained, saved and generated with."""

import re
from pathlib import Path

import pytest
import torch

from moka_peft import route

PAGE = Path(__file__).parents[2] / "docs" / "new_modality.md"
ENCODER, COMPOSITE, ADAPTER, TRAINING, USE = range(5)
MODALITIES = ["text", "visual", "audio", "series"]


def blocks() -> list[str]:
    return re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


def adapter_weights(model) -> dict[str, torch.Tensor]:
    return {name: weight for name, weight in model.named_parameters() if ".moka_A_" in name}


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """What the page's code leaves behind, with the A's as they were before training and the trained model."""
    folder = tmp_path_factory.mktemp("page")
    names: dict = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for index, block in enumerate(blocks()):
            exec(compile(block, f"{PAGE.name}, block {index}", "exec"), names)
            if index == ADAPTER:
                names["untrained"] = {n: w.detach().clone() for n, w in adapter_weights(names["model"]).items()}
            if index == TRAINING:
                names["trained"] = names["model"].eval()
    return names


def test_the_addition_takes_as_many_lines_as_the_page_says():
    lines = [line for block in blocks()[: ADAPTER + 1] for line in block.splitlines() if line.strip()]
    assert len(lines) < 40
    assert f"That is the whole addition, {len(lines)} lines." in PAGE.read_text(encoding="utf-8")


def test_the_loss_falls_below_chance(page):
    guessing = torch.tensor(2.0).log().item() / 2  # one of two answers, and a certain end of turn
    assert max(page["losses"][-5:]) < guessing / 2


def test_every_modality_trains_its_own_a(page):
    model = page["trained"]
    model.zero_grad()
    model(**page["collate"](torch.tensor([0.5, -0.5]))).loss.backward()
    for modality in MODALITIES:
        own = {n: w for n, w in adapter_weights(model).items() if f".moka_A_{modality}." in n}
        assert len(own) == 4 * 7  # layers, matrices
        # in the last layer only keys and values of media reach the answer
        reached = {n: w for n, w in own.items() if modality == "text" or ".layers.3." not in n or "v_proj" in n}
        assert all(weight.grad.any() for weight in reached.values()), modality
        assert all(not torch.equal(weight, page["untrained"][name]) for name, weight in reached.items()), modality


def test_series_are_routed_to_their_own_a_and_to_the_instruction(page):
    model, batch = page["trained"], page["collate"](torch.tensor([0.5]))
    spec = model.peft_config["default"].routing
    routing = route(batch["input_ids"], spec, batch["attention_mask"])
    series = batch["input_ids"][0] == model.config.series_token_id
    assert series.sum() == 4
    names = routing.modalities or tuple(MODALITIES)
    assert {names[k] for k in routing.modality[0, series].tolist()} == {"series"}
    assert routing.turn[0, series].unique().tolist() == [1]
    asked = page["processor"].tokenizer.decode(
        batch["input_ids"][0, (routing.modality[0] == 0) & (routing.turn[0] == 1)]
    )
    assert asked == "Is the sequence falling (1) or rising (2)?"


def test_series_see_the_question_that_comes_after_them(page):
    """Through the adapter alone: the language model is causal."""
    model, batch = page["trained"], page["collate"](torch.tensor([0.5]))
    batch.pop("labels")
    position = (batch["input_ids"][0] == model.config.series_token_id).nonzero()[-1].item()
    other = {**batch, "input_ids": batch["input_ids"].clone()}
    other["input_ids"][0, position + 3] = page["processor"].tokenizer.convert_tokens_to_ids("Ġnotes")

    def state(inputs: dict) -> torch.Tensor:
        return model(**inputs, output_hidden_states=True).hidden_states[-1][0, position]

    assert not torch.allclose(state(batch), state(other), atol=1e-4)
    with model.disable_adapter():
        torch.testing.assert_close(state(batch), state(other), rtol=0, atol=1e-6)


def test_the_loaded_adapter_is_the_trained_one(page):
    assert page["model"] is not page["trained"]
    batch = page["collate"](torch.tensor([0.5, -0.5]))
    assert torch.equal(page["model"](**batch).logits, page["trained"](**batch).logits)
    trained, loaded = (m.base_model.model.series_encoder.patches for m in (page["trained"], page["model"]))
    assert torch.equal(trained.weight, loaded.weight)


def test_it_answers_as_the_page_says(page):
    assert page["answers"] == ["2", "1"]


def test_beams_keep_each_rows_series(page):
    prompt, model = dict(page["prompt"]), page["model"]
    greedy = model.generate(**prompt, max_new_tokens=1, do_sample=False)
    beams = model.generate(**prompt, max_new_tokens=1, num_beams=2, num_return_sequences=2)
    assert torch.equal(beams[::2], greedy)
    embeds = model.base_model.model.embed_media("series", prompt.pop("series_values")).flatten(0, 1)
    assert torch.equal(model.generate(**prompt, series_embeds=embeds, max_new_tokens=1), greedy)
