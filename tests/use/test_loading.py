"""How an adapter on a multimodal model is put on, saved and found again, by the words of PEFT and of transformers."""

from __future__ import annotations

import json

import pytest
import torch
from peft import AutoPeftModel, PeftModel, get_peft_model
from transformers import AutoModelForImageTextToText, LlavaForConditionalGeneration

from moka_peft import MokaConfig, RoutingSpec
from moka_peft.tuner.layer import MokaLinear

from .conftest import labels_after_question


@pytest.fixture
def trained(llava, moka, batch):
    """A PeftModel that has taken one optimiser step; nobody has passed it a spec."""
    model = get_peft_model(llava(), moka(init_lora_weights=False))
    step(model, batch("black", None, "white"))
    return model.eval()


def step(model, inputs):
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    model.train()(**inputs, labels=labels_after_question(inputs)).loss.backward()
    optimizer.step()


def test_spec_is_derived_at_the_first_forward_and_saved(llava, moka, processor, folder, batch, tmp_path):
    model = get_peft_model(llava(), moka())
    config = model.peft_config["default"]
    assert config.routing is None and config.modalities == ("text", "visual")
    step(model, batch("black", "white"))
    expected = RoutingSpec.from_pretrained(model.config, processor)
    assert config.routing == expected
    model.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "adapter_config.json").read_text())
    assert RoutingSpec.from_dict(saved["routing"]) == expected
    assert saved["base_model_name_or_path"] == str(folder)


def test_saved_before_the_first_forward_derives_it_after_loading(llava, moka, batch, tmp_path):
    model = get_peft_model(llava(), moka(init_lora_weights=False)).eval()
    model.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(llava(), tmp_path).eval()
    inputs = batch("black", "white")
    assert torch.equal(loaded(**inputs).logits, model(**inputs).logits)


def test_a_model_without_its_processor_says_what_to_pass(llava, moka, batch, tmp_path):
    llava().save_pretrained(tmp_path)
    model = get_peft_model(LlavaForConditionalGeneration.from_pretrained(tmp_path), moka())
    with pytest.raises(ValueError, match="no routing spec, and no processor could be loaded from .*from_pretrained"):
        model(**batch("black"))


@pytest.mark.parametrize("opened_by", [AutoPeftModel, AutoModelForImageTextToText], ids=lambda cls: cls.__name__)
def test_adapter_folder_opens_with_its_base(trained, batch, tmp_path, opened_by):
    trained.save_pretrained(tmp_path)
    loaded = opened_by.from_pretrained(tmp_path).eval()
    inputs = batch("black", None, "white")
    assert torch.equal(loaded(**inputs).logits, trained(**inputs).logits)
    prompt = {name: value[:1] for name, value in batch("black", padding_side="left").items()}
    assert torch.equal(loaded.generate(**prompt, max_new_tokens=3), trained.generate(**prompt, max_new_tokens=3))


def test_adapter_beside_a_copy_of_its_base(trained, folder, batch, tmp_path):
    """One folder with the base's files and the adapter's, as servers take it."""
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    trained.save_pretrained(tmp_path)
    loaded = AutoModelForImageTextToText.from_pretrained(tmp_path).eval()
    inputs = batch("black", "white")
    assert torch.equal(loaded(**inputs).logits, trained(**inputs).logits)


def test_transformers_load_adapter(trained, llava, batch, tmp_path):
    trained.save_pretrained(tmp_path)
    inputs = batch("black", None, "white")
    model = llava()
    base = model(**inputs).logits
    model.load_adapter(str(tmp_path), adapter_name="bright")
    assert torch.equal(model(**inputs).logits, trained(**inputs).logits)
    model.disable_adapters()
    assert torch.equal(model(**inputs).logits, base)
    model.enable_adapters()
    model.delete_adapter("bright")
    assert torch.equal(model(**inputs).logits, base)


def test_transformers_add_adapter_trains_and_saves(llava, moka, batch, tmp_path):
    model = llava()
    model.add_adapter(moka(init_lora_weights=False), adapter_name="bright")
    assert {n.split(".moka_")[0] for n, p in model.named_parameters() if p.requires_grad} == {
        name for name, module in model.named_modules() if isinstance(module, MokaLinear)
    }
    inputs = batch("black", None, "white")
    step(model, inputs)
    model.save_pretrained(tmp_path)
    expected = model.eval()(**inputs).logits
    loaded = llava()
    loaded.load_adapter(str(tmp_path))
    assert torch.equal(loaded(**inputs).logits, expected)
    assert torch.equal(PeftModel.from_pretrained(llava(), tmp_path).eval()(**inputs).logits, expected)


def test_two_adapters_of_transformers(llava, moka, batch):
    model, inputs = llava(), batch("black", "white")
    logits = {}
    model.add_adapter(moka(init_lora_weights=False), adapter_name="one")
    logits["one"] = model(**inputs).logits
    with pytest.warns(UserWarning, match="having multiple adapters"):  # PEFT's, with every method
        model.add_adapter(moka(init_lora_weights=False), adapter_name="two")
    logits["two"] = model(**inputs).logits
    model.set_adapter("one")
    assert torch.equal(model(**inputs).logits, logits["one"]) and not torch.equal(logits["one"], logits["two"])


@pytest.mark.parametrize("task_type", [None, "CAUSAL_LM"])
def test_task_type_changes_nothing(llava, batch, task_type):
    """Scripts for LoRA often pass one: the routing, labels and generation then go through another PeftModel class."""
    torch.manual_seed(0)
    config = MokaConfig(init_lora_weights=False, task_type=task_type)
    model = get_peft_model(llava(), config).eval()
    inputs = batch("black", None, "white")
    routed = model(**inputs).logits
    with pytest.raises(ValueError, match="instruction tokens carry loss"):
        model(**inputs, labels=inputs["input_ids"])
    torch.manual_seed(0)
    plain = get_peft_model(llava(), MokaConfig(init_lora_weights=False)).eval()
    assert torch.equal(routed, plain(**inputs).logits)
    prompt = batch("black", padding_side="left")
    assert torch.equal(model.generate(**prompt, max_new_tokens=3), plain.generate(**prompt, max_new_tokens=3))


@pytest.mark.parametrize("padding_side", ["left", "right"])
def test_rows_with_and_without_media_do_not_touch_each_other(trained, batch, padding_side):
    together = batch("black", None, "white", padding_side=padding_side)
    positions = (together["attention_mask"].cumsum(1) - 1).clamp(min=0)
    logits = trained(**together, position_ids=positions).logits
    for row, images in enumerate((slice(0, 1), slice(0, 0), slice(1, 2))):
        real = together["attention_mask"][row].bool()
        alone = {"input_ids": together["input_ids"][row : row + 1, real]}
        if together["pixel_values"][images].numel():
            alone["pixel_values"] = together["pixel_values"][images]
        torch.testing.assert_close(logits[row, real], trained(**alone).logits[0], rtol=1e-4, atol=1e-4)
