"""What MokA's adapter does under PEFT and transformers, done with every method it is compared with: a matrix of
(method, behaviour). How they train and generate is in the files beside this one."""

import copy
import json
import pickle

import pytest
import torch
from peft import PeftConfig, PeftModel, get_peft_model
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from peft.utils.other import fsdp_auto_wrap_policy
from safetensors.torch import load_file, save_file

from moka_peft.tuner.channel import ATTRIBUTE

from .adapting import (
    METHODS,
    OURS,
    adapt,
    adapted_layers,
    adapter_weights,
    config_of,
    is_pefts_own,
    kind_of,
    logits_of,
    randomise,
)

ONE_WEIGHT = ("lora", "dora", "multiple_lora", "imod")
"""Methods whose update is the same for every token, so that a plain weight holds it."""
TEXT_PATH = ("moka", "moka_shared_a")
"""Of their update the part of text tokens merges: media keep the rest."""


@pytest.fixture
def ids(chat):
    return torch.cat([chat("vvxyz", "pp"), chat("xavwq", "mm")])


@pytest.fixture(params=METHODS)
def method(request):
    return request.param


@pytest.fixture
def adapted(tiny_lm, spec, method):
    """adapted(**settings) -> a model with the method's adapter; the base differs by `seed`, the adapter does not."""
    return lambda seed=0, **settings: adapt(tiny_lm(seed), method, spec, **settings)


def near(got, expected, tolerance=1e-4):
    torch.testing.assert_close(got, expected, rtol=tolerance, atol=tolerance)


def test_a_fresh_adapter_changes_nothing(tiny_lm, spec, method, ids):
    expected = logits_of(tiny_lm(), ids)
    model = get_peft_model(tiny_lm(), config_of(method, spec))
    for mode in (model.eval(), model.train()):
        if method == "dora":  # divides by the norm that it multiplies with
            near(logits_of(mode, ids), expected)
        else:
            assert torch.equal(logits_of(mode, ids), expected)


@pytest.mark.parametrize("turn", ["xyz", "vvx", "aax"])
def test_a_trained_adapter_changes_text_and_media(adapted, tiny_lm, chat, turn):
    ids = chat(turn)
    changed = (logits_of(adapted(), ids) - logits_of(tiny_lm(), ids)).norm(dim=-1)
    assert (changed > 1e-3).all()


def test_saved_and_loaded_is_equal(adapted, tiny_lm, ids, tmp_path):
    model = adapted()
    model.save_pretrained(tmp_path)
    expected = logits_of(model, ids)
    for options in ({}, {"low_cpu_mem_usage": True}):
        loaded = PeftModel.from_pretrained(tiny_lm(), tmp_path, **options)
        assert torch.equal(logits_of(loaded, ids), expected)
    assert type(loaded.peft_config["default"]) is type(model.peft_config["default"])
    again = {name: weight.requires_grad for name, weight in adapter_weights(loaded)}
    assert again.keys() == dict(adapter_weights(model)).keys() and not any(again.values())


def test_settings_come_back(adapted, tiny_lm, ids, tmp_path):
    model = adapted(rank_pattern={"q_proj": 2}, alpha_pattern={"v_proj": 12}, use_rslora=True, bias="all")
    model.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(tiny_lm(), tmp_path)
    first, second = (m.peft_config["default"].to_dict() for m in (model, loaded))
    of_loading = {"inference_mode", "base_model_name_or_path", "auto_mapping"}
    assert {key for key in first if first[key] != second[key]} <= of_loading
    assert torch.equal(logits_of(loaded, ids), logits_of(model, ids))


@pytest.mark.parametrize("ours", OURS)
def test_a_reader_without_the_library_fails(ours, spec, tmp_path, monkeypatch):
    config_of(ours, spec).save_pretrained(str(tmp_path))
    kind = json.loads((tmp_path / "adapter_config.json").read_text())["peft_type"]
    assert kind == kind_of(ours) and kind.startswith("MOKA") and not is_pefts_own(kind)
    text = (tmp_path / "README.md").read_text()
    assert "import moka_peft" in text and f"KeyError: '{kind}'" in text
    for registered in [name for name in PEFT_TYPE_TO_CONFIG_MAPPING if not is_pefts_own(name)]:
        monkeypatch.delitem(PEFT_TYPE_TO_CONFIG_MAPPING, registered)
    with pytest.raises(KeyError, match=kind):
        PeftConfig.from_pretrained(str(tmp_path))


def test_every_method_of_ours_has_its_own_type():
    assert len({kind_of(ours) for ours in OURS}) == len(OURS)


def test_disabled_it_is_the_base(adapted, tiny_lm, ids):
    model = adapted()
    expected = logits_of(model, ids)
    with model.disable_adapter():
        assert torch.equal(logits_of(model, ids), logits_of(tiny_lm(), ids))
    assert torch.equal(logits_of(model, ids), expected)


def test_two_adapters(adapted, spec, method, ids):
    model = adapted()
    first = logits_of(model, ids)
    model.add_adapter("other", config_of(method, spec, r=2, init_lora_weights=False))
    assert torch.equal(logits_of(model, ids), first)
    model.set_adapter("other")
    randomise(model)
    other = logits_of(model, ids)
    model.base_model.set_adapter(["default", "other"])
    both = logits_of(model, ids)
    assert not any(torch.equal(*pair) for pair in ((first, other), (first, both), (other, both)))
    model.set_adapter("default")
    assert {n.split(".")[-2] for n, p in adapter_weights(model) if p.requires_grad} <= {"default", "lora_magnitude"}
    model.delete_adapter("other")
    assert torch.equal(logits_of(model, ids), first) and not any(".other." in n for n, _ in adapter_weights(model))


def test_an_adapter_beside_another_is_that_adapter(adapted, tiny_lm, spec, method, ids, tmp_path):
    """Whose rank is another; loaded second, it is what it was alone."""
    adapt(tiny_lm(), method, spec, r=2, lora_alpha=8).save_pretrained(tmp_path)
    alone = PeftModel.from_pretrained(tiny_lm(), tmp_path)
    model = adapted()
    model.load_adapter(tmp_path, adapter_name="second")
    model.set_adapter("second")
    assert torch.equal(logits_of(model.eval(), ids), logits_of(alone, ids))


def test_merging(adapted, ids, method):
    model = adapted()
    expected = logits_of(model, ids)
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    if method not in (*ONE_WEIGHT, *TEXT_PATH):
        with pytest.raises(ValueError, match="cannot be merged: what it adds depends on the token"):
            model.merge_adapter()
        assert all(torch.equal(weight, before[name]) for name, weight in model.named_parameters())
        return
    model.merge_adapter(safe_merge=True)
    near(logits_of(model, ids), expected)
    changed = [name for name, weight in model.named_parameters() if not torch.equal(weight, before[name])]
    assert len(changed) == len(adapted_layers(model)) and all(".base_layer." in name for name in changed)
    with model.disable_adapter():
        near(logits_of(model, ids), logits_of(adapted().unload(), ids))
    model.merge_adapter()
    model.unmerge_adapter()
    near(logits_of(model, ids), expected)
    for name in changed:
        near(model.get_parameter(name), before[name], 1e-6)


def test_merging_for_good(adapted, ids, method):
    model = adapted()
    expected = logits_of(model, ids)
    if method in ONE_WEIGHT:
        plain = model.merge_and_unload()
        assert not adapted_layers(plain) and not hasattr(plain, ATTRIBUTE)
        near(logits_of(plain, ids), expected)
        return
    with pytest.raises(ValueError, match="would lose the|depends on the token, which no single weight"):
        model.merge_and_unload()
    assert torch.equal(logits_of(model, ids), expected)


def test_what_no_weight_can_hold_is_not_told_as_one(adapted, method):
    layer = adapted_layers(adapted())[0]
    if method in (*ONE_WEIGHT, *TEXT_PATH):
        assert layer.get_delta_weight("default").shape == layer.base_layer.weight.shape
    else:
        with pytest.raises(ValueError, match="depends on the token, which no single weight can hold"):
            layer.get_delta_weight("default")


@pytest.mark.parametrize("ours", [method for method in (*ONE_WEIGHT, *TEXT_PATH) if method in OURS])
def test_one_of_two_merges(tiny_lm, spec, ours, ids):
    """The other goes on beside it, where PEFT's LoRA forgets it."""
    model = adapt(tiny_lm(), ours, spec)
    model.add_adapter("other", config_of(ours, spec, r=2))
    randomise(model)
    model.base_model.set_adapter(["default", "other"])
    both = logits_of(model, ids)
    model.merge_adapter(["other"])
    assert {tuple(layer.merged_adapters) for layer in adapted_layers(model)} == {("other",)}
    near(logits_of(model, ids), both)
    model.unmerge_adapter()
    near(logits_of(model, ids), both)


@pytest.mark.parametrize(
    ("settings", "count"),
    [({"layers_to_transform": [1]}, 3), ({"exclude_modules": ["v_proj"]}, 4), ({"target_modules": "all-linear"}, 14)],
)
def test_modules_can_be_chosen(adapted, settings, count):
    assert len(adapted_layers(adapted(**settings))) == count


def test_gaussian_initialisation(tiny_lm, spec, method):
    """As in LoRA: A of deviation 1 / r, B zero."""
    torch.manual_seed(0)
    model = get_peft_model(tiny_lm(), config_of(method, spec, r=16, init_lora_weights="gaussian"))
    for name, weight in adapter_weights(model):
        if "_A" in name:
            assert abs(weight.std().item() * 16 - 1) < 0.2, name
        elif "_B" in name:
            assert not weight.any(), name


def test_unload_gives_the_base_back(adapted, tiny_lm, ids):
    base = adapted().unload()
    assert torch.equal(logits_of(base, ids), logits_of(tiny_lm(), ids))
    assert not base._forward_pre_hooks and "generate" not in base.__dict__ and not adapted_layers(base)
    assert base.state_dict().keys() == tiny_lm().state_dict().keys()


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_copies(adapted, ids, copied):
    model = adapted()
    twin = copied(model)
    expected = logits_of(model, ids)
    assert torch.equal(logits_of(twin, ids), expected)
    for _, weight in adapter_weights(twin):
        weight.data.zero_()
    assert torch.equal(logits_of(model, ids), expected) and not torch.equal(logits_of(twin, ids), expected)


@pytest.mark.parametrize("ours", OURS)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("shape", r"is \[\d+, \d+\], but this model takes \[\d+, \d+\]. It was trained on another base model"),
        ("missing", r"the adapter holds no '.*', nor 0 more weights. It was trained on another base model"),
        ("more", r"and 0 more fit no layer here. It was trained on another base model"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(tiny_lm, spec, ours, tmp_path, change, message):
    adapt(tiny_lm(), ours, spec).save_pretrained(tmp_path)
    weights = load_file(tmp_path / "adapter_model.safetensors")
    last = list(weights)[-1]
    if change == "shape":
        weights[last] = torch.zeros(weights[last].shape[0] + 1, weights[last].shape[1])
    elif change == "missing":
        del weights[last]
    else:
        weights[last.replace("layers.1", "layers.7")] = weights[last].clone()
    save_file(weights, tmp_path / "adapter_model.safetensors")
    with pytest.raises(ValueError, match=message):
        PeftModel.from_pretrained(tiny_lm(), tmp_path)


def test_modules_to_save_are_trained_and_saved(tiny_lm, spec, method, ids, tmp_path):
    model = adapt(tiny_lm(), method, spec, modules_to_save=["lm_head"])
    model.base_model.model.lm_head.modules_to_save["default"].weight.data += 1
    model.save_pretrained(tmp_path)
    assert torch.equal(logits_of(PeftModel.from_pretrained(tiny_lm(), tmp_path), ids), logits_of(model, ids))


def test_transformers_own_words(tiny_lm, spec, method, ids, adapted, tmp_path):
    """add_adapter, disable_adapters, save_pretrained and load_adapter of a transformers model."""
    model = tiny_lm()
    base = logits_of(model, ids)
    model.add_adapter(config_of(method, spec))
    randomise(model)
    changed = logits_of(model, ids)
    model.disable_adapters()
    assert torch.equal(logits_of(model, ids), base) and not torch.equal(changed, base)
    model.enable_adapters()
    assert torch.equal(logits_of(model, ids), changed)
    model.save_pretrained(tmp_path)
    plain = tiny_lm()
    plain.load_adapter(str(tmp_path))
    assert torch.equal(logits_of(plain, ids), changed)


def test_no_matrix_is_sharded_by_itself(adapted):
    """PEFT's policy for FSDP makes a unit of every leaf that trains; a layer reads these without calling them."""
    model = adapted()
    policy = fsdp_auto_wrap_policy(model)
    units = [n for n, m in model.named_modules() if policy(module=m, recurse=False, nonwrapped_numel=0)]
    assert not any(".moka_" in name for name in units)
    assert any(name.endswith("layers.1") for name in units)
