"""What PEFT and transformers do with an adapter, done with MokA."""

import pytest
import torch
from peft import AutoPeftModel, LoraConfig, PeftModel, get_peft_model, inject_adapter_in_model
from torch import nn
from transformers import AutoModelForCausalLM, CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

from moka_peft import MokaConfig, Routing
from moka_peft.tuner.channel import ATTRIBUTE
from moka_peft.tuner.layer import MokaLinear
from moka_peft.tuner.targets import placeholder_modalities


@pytest.fixture
def ids(chat):
    return torch.cat([chat("vvxyz", "pp"), chat("xavwq", "mm")])


def adapted_names(model):
    return {name for name, module in model.named_modules() if isinstance(module, MokaLinear)}


def test_saved_and_loaded_is_equal(adapted, tiny_lm, ids, tmp_path):
    model = adapted()
    model.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(tiny_lm(), tmp_path)
    assert torch.equal(loaded(ids).logits, model(ids).logits)
    assert loaded.peft_config["default"].routing == model.peft_config["default"].routing
    assert (tmp_path / "adapter_model.safetensors").exists()
    lean = PeftModel.from_pretrained(tiny_lm(), tmp_path, low_cpu_mem_usage=True)
    assert torch.equal(lean(ids).logits, model(ids).logits)


def test_parameter_names_are_the_contract(adapted):
    names = [n for n, p in adapted(target_modules=["q_proj"]).named_parameters() if p.requires_grad]
    prefix = "base_model.model.model.layers.0.self_attn.q_proj"
    assert f"{prefix}.moka_A_text.default.weight" in names and f"{prefix}.moka_A_visual.default.weight" in names
    assert f"{prefix}.moka_B.default.weight" in names and len(names) == 2 * 4


def test_auto_peft_model_and_transformers_loading(tiny_lm, spec, randomise, ids, tmp_path):
    tiny_lm().save_pretrained(tmp_path / "base")
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    model = get_peft_model(base, MokaConfig(r=3, modalities=("text", "visual", "audio"), routing=spec)).eval()
    randomise(model)
    model.save_pretrained(tmp_path / "adapter")
    expected = model(ids).logits
    assert torch.equal(AutoPeftModel.from_pretrained(tmp_path / "adapter").eval()(ids).logits, expected)
    assert torch.equal(AutoModelForCausalLM.from_pretrained(tmp_path / "adapter").eval()(ids).logits, expected)
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "base").eval()
    plain.load_adapter(str(tmp_path / "adapter"))
    assert torch.equal(plain(ids).logits, expected)


def test_transformers_add_adapter(tiny_lm, spec, randomise, ids):
    model = tiny_lm()
    base = model(ids).logits
    model.add_adapter(MokaConfig(r=3, modalities=("text", "visual", "audio"), routing=spec))
    randomise(model)
    changed = model(ids).logits
    assert not torch.equal(changed, base)
    model.disable_adapters()
    assert torch.equal(model(ids).logits, base)
    model.enable_adapters()
    assert torch.equal(model(ids).logits, changed)
    assert model.generate(ids, max_new_tokens=2, do_sample=False).shape == (2, ids.shape[1] + 2)


def test_transformers_saves_what_peft_loads(tiny_lm, spec, randomise, ids, tmp_path):
    model = tiny_lm()
    model.add_adapter(MokaConfig(r=3, modalities=("text", "visual", "audio"), routing=spec))
    randomise(model)
    model.save_pretrained(tmp_path)
    assert "import moka_peft" in (tmp_path / "README.md").read_text()
    assert torch.equal(PeftModel.from_pretrained(tiny_lm(), tmp_path).eval()(ids).logits, model(ids).logits)


def test_inject_adapter_in_model(tiny_lm, spec, randomise, adapted, ids):
    model = inject_adapter_in_model(
        MokaConfig(r=3, lora_alpha=6, modalities=("text", "visual", "audio"), routing=spec), tiny_lm()
    )
    randomise(model)
    assert torch.equal(model(ids).logits, adapted()(ids).logits)


def test_several_adapters(adapted, spec, ids):
    model = adapted()
    first = model(ids).logits
    model.add_adapter(
        "other", MokaConfig(r=2, modalities=("text", "audio", "visual"), routing=spec, init_lora_weights=False)
    )
    assert torch.equal(model(ids).logits, first)
    model.set_adapter("other")
    other = model(ids).logits
    assert not torch.equal(other, first)
    model.base_model.set_adapter(["default", "other"])
    both = model(ids).logits
    assert not torch.equal(both, first) and not torch.equal(both, other)
    model.set_adapter("default")
    model.delete_adapter("other")
    assert torch.equal(model(ids).logits, first)


def test_an_adapter_added_to_another_is_loaded_alone(adapted, tiny_lm, spec, tmp_path):
    """Left to itself it takes all projections, and none of the first one's matrices."""
    model = adapted()
    model.add_adapter("other", MokaConfig(modalities=("text", "visual", "audio"), routing=spec))
    model.save_pretrained(tmp_path)
    alone = PeftModel.from_pretrained(tiny_lm(), tmp_path / "other")
    assert adapted_names(alone) == adapted_names(model)
    every = "q_proj k_proj v_proj o_proj gate_proj up_proj down_proj"
    assert alone.peft_config["default"].target_modules == set(every.split())


def test_explicit_routing_needs_names_where_adapters_differ(adapted, spec, ids):
    model = adapted()
    model.add_adapter("other", MokaConfig(modalities=("text", "audio", "visual"), routing=spec))
    model.base_model.set_adapter(["default", "other"])
    zeros = torch.zeros_like(ids)
    with pytest.raises(ValueError, match="`routing` has no `modalities`, and the active adapters differ"):
        model(ids, routing=Routing(zeros, zeros))
    model(ids, routing=Routing(zeros, zeros, ("text", "visual", "audio")))


@pytest.mark.parametrize("interaction", ["cross_attention", "text_query", "mean", "none"])
def test_merged_equals_unmerged(adapted, ids, interaction):
    model = adapted(interaction=interaction)
    expected, decoded = model(ids).logits, model.generate(ids, max_new_tokens=6, do_sample=False)
    base = model.base_model.model.model.layers[0].mlp.up_proj.base_layer.weight.clone()
    model.merge_adapter()
    torch.testing.assert_close(model(ids).logits, expected, rtol=1e-4, atol=1e-4)
    assert torch.equal(model.generate(ids, max_new_tokens=6, do_sample=False), decoded)
    model.unmerge_adapter()
    torch.testing.assert_close(model.base_model.model.model.layers[0].mlp.up_proj.base_layer.weight, base)
    torch.testing.assert_close(model(ids).logits, expected, rtol=1e-4, atol=1e-4)


def test_merged_text_costs_no_adapter_arithmetic(adapted, chat, monkeypatch):
    model = adapted()
    model.merge_adapter()
    monkeypatch.setattr(MokaLinear, "_adapter", lambda *_: pytest.fail("the adapter computed on text alone"))
    model(chat("xyz", "pp"))


def test_disabling_a_merged_adapter_gives_the_base(adapted, tiny_lm, ids):
    model = adapted()
    model.merge_adapter()
    with model.disable_adapter():
        torch.testing.assert_close(model(ids).logits, tiny_lm()(ids).logits, rtol=1e-4, atol=1e-4)


def test_merge_and_unload_says_what_it_would_lose(adapted):
    with pytest.raises(ValueError, match=r"`merge_and_unload` would lose the media path.*merge_adapter\(\)"):
        adapted().merge_and_unload()


def test_merge_and_unload_where_it_loses_nothing(adapted, ids):
    model = adapted(interaction="none")
    for layer in (m for m in model.modules() if isinstance(m, MokaLinear)):
        for modality in ("visual", "audio"):
            getattr(layer, f"moka_A_{modality}")["default"].weight.data = layer.moka_A_text["default"].weight.data
    expected = model(ids).logits
    plain = model.merge_and_unload()
    assert adapted_names(plain) == set() and not hasattr(plain, ATTRIBUTE)
    torch.testing.assert_close(plain(ids).logits, expected, rtol=1e-4, atol=1e-4)


def test_unload_gives_the_base_and_its_own_methods_back(adapted, tiny_lm, ids):
    base = adapted().unload()
    assert torch.equal(base(ids).logits, tiny_lm()(ids).logits)
    assert not base._forward_pre_hooks and "generate" not in base.__dict__


def test_quantized_base_is_not_merged(adapted):
    model = adapted()
    layer = model.base_model.model.model.layers[0].self_attn.q_proj

    class Linear8bit(nn.Linear):
        pass

    layer.base_layer.__class__ = Linear8bit
    with pytest.raises(ValueError, match=r"`merge_adapter`: the base of .*q_proj' is quantized \(Linear8bit\)"):
        model.merge_adapter()


def test_modules_to_save_are_trained_and_saved(tiny_lm, spec, ids, tmp_path):
    config = MokaConfig(modalities=("text", "visual", "audio"), routing=spec, modules_to_save=["lm_head"])
    model = get_peft_model(tiny_lm(), config)
    model.base_model.model.lm_head.modules_to_save["default"].weight.data += 1
    model.save_pretrained(tmp_path)
    assert torch.equal(PeftModel.from_pretrained(tiny_lm(), tmp_path).eval()(ids).logits, model.eval()(ids).logits)


def test_copies_and_pickles(adapted, ids, tmp_path):
    import copy

    model = adapted()
    twin = copy.deepcopy(model)
    assert torch.equal(twin(ids).logits, model(ids).logits)
    twin.base_model.model.model.layers[0].self_attn.q_proj.moka_B["default"].weight.data.zero_()
    assert not torch.equal(twin(ids).logits, model(ids).logits)
    assert torch.equal(twin.generate(ids, max_new_tokens=2, do_sample=False)[:, :-2], ids)


def test_wrong_base_is_named(adapted, tiny_lm, tmp_path):
    adapted().save_pretrained(tmp_path)
    for change, message in {
        "hidden_size": r"is \[\d+, \d+\], but this model takes \[\d+, \d+\]. It was trained on another base model",
        "more": r"holds no 'base_model.model.model.layers.2.*more weights. It was trained on another base model",
        "fewer": r"layers.1.* fit no layer here. It was trained on another base model",
    }.items():
        base = {"hidden_size": {"hidden_size": 64}, "more": {"num_hidden_layers": 3}, "fewer": {"num_hidden_layers": 1}}
        with pytest.raises(ValueError, match=message):
            PeftModel.from_pretrained(tiny_lm(**base[change]), tmp_path)


def test_a_part_that_is_not_here_is_named(tiny_lm, spec, tmp_path):
    config = MokaConfig(modalities=("text", "visual", "audio"), routing=spec, modules_to_save=["projector"])
    bases = {depth: tiny_lm() for depth in (1, 2, 0)}
    for depth, base in bases.items():
        if depth:
            base.projector = torch.nn.Sequential(*(torch.nn.Linear(4, 4) for _ in range(depth)))
    get_peft_model(bases[2], config).save_pretrained(tmp_path)
    for depth, lost in ((1, r"projector\.1\.bias' and 1 more"), (0, r"projector\.0\.bias' and 3 more")):
        with pytest.raises(ValueError, match=rf"base_model\.model\.{lost} fit no layer here"):
            PeftModel.from_pretrained(bases[depth], tmp_path)


def test_another_methods_layer_is_refused(tiny_lm, spec):
    model = inject_adapter_in_model(LoraConfig(target_modules=["q_proj"]), tiny_lm())
    del model.peft_config
    config = MokaConfig(modalities=("text", "visual"), routing=spec, target_modules=["q_proj"])
    with pytest.raises(ValueError, match="already carries a Linear adapter of another method"):
        inject_adapter_in_model(config, model)


@pytest.fixture
def llava():
    torch.manual_seed(0)
    small = dict(hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2)
    vision = CLIPVisionConfig(**small, image_size=8, patch_size=4)
    text = LlamaConfig(**small, vocab_size=60)
    return LlavaForConditionalGeneration(LlavaConfig(vision_config=vision, text_config=text, image_token_id=50)).eval()


def test_default_targets_are_the_text_decoder_only(llava):
    model = get_peft_model(llava, MokaConfig())
    names = adapted_names(model)
    assert len(names) == 7 and all(".language_model.layers.0." in name for name in names)
    assert model.peft_config["default"].modalities == ("text", "visual")


def test_default_modalities_are_media_and_no_other_token(llava):
    """Qwen2.5-Omni's config has `user_token_id`, no medium, Qwen2.5-VL's `vision_token_id`, which is visual."""
    config = llava.config
    config.user_token_id, config.vision_token_id, config.audio_token_id = 7, 8, 9
    config.thermal_token_id, config.thermal_config = 10, {}
    assert placeholder_modalities(config) == ("text", "visual", "audio", "thermal")


@pytest.mark.parametrize("targets", [["q_proj", "v_proj"], "all-linear", r".*language_model.*\.(q|v)_proj"])
def test_names_match_inside_the_text_decoder_only(llava, targets):
    names = adapted_names(get_peft_model(llava, MokaConfig(target_modules=targets)))
    assert len(names) == (7 if targets == "all-linear" else 2) and not any("vision" in name for name in names)


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (r".*\.q_proj", "matches 'model.vision_tower.*outside the text decoder"),
        (["fc1"], "'fc1' matches 'model.vision_tower.*outside the text decoder"),
        (["multi_modal_projector.linear_1"], "outside the text decoder"),
        (["w_pack"], r"`target_modules`: \['w_pack'\] match no Linear of the text decoder. It has \['down_proj'"),
        (r"nothing.*", r"match no Linear of the text decoder"),
    ],
)
def test_wrong_targets_are_named(llava, targets, message):
    with pytest.raises(ValueError, match=message):
        get_peft_model(llava, MokaConfig(target_modules=targets))


def test_layers_and_modules_can_be_chosen(adapted):
    assert len(adapted_names(adapted(layers_to_transform=[1]))) == 7
    assert len(adapted_names(adapted(exclude_modules=["up_proj"]))) == 12


def test_no_placeholder_and_no_modalities_is_named(tiny_lm):
    with pytest.raises(ValueError, match="`modalities`: no placeholder token found on the model's config"):
        get_peft_model(tiny_lm(), MokaConfig())


def test_trainable_parameters_count(adapted, capsys):
    model = adapted(target_modules=["q_proj"])
    model.print_trainable_parameters()
    assert "trainable params: 768 " in capsys.readouterr().out  # 2 layers x (3 A [3, 32] + B [32, 3])
