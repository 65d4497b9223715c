"""A base whose weights accelerate keeps elsewhere: adapters on it give the same outputs, train, save and load."""

from __future__ import annotations

import pytest
import torch
from accelerate import cpu_offload, disk_offload, dispatch_model
from peft import PeftModel, get_peft_model
from safetensors.torch import load_file

from moka_peft.tuner.layer import MokaLinear

from .conftest import labels_after_question

OFFLOADED = "model.language_model.layers.1"


def place(model, prefix=""):
    """A device_map that keeps the second layer of the decoder on disk."""
    parts = ["model.vision_tower", "model.multi_modal_projector", "model.language_model.embed_tokens", "lm_head"]
    parts += ["model.language_model.norm", "model.language_model.rotary_emb", "model.language_model.layers.0"]
    return {**{prefix + part: "cpu" for part in parts}, prefix + OFFLOADED: "disk"}


OFFLOADS = {
    "all to cpu": lambda model, folder: cpu_offload(model, execution_device=torch.device("cpu")),
    "all to disk": lambda model, folder: disk_offload(model, folder, execution_device=torch.device("cpu")),
    "one layer to disk": lambda model, folder: dispatch_model(
        model, place(model), main_device="cpu", offload_dir=folder, force_hooks=True
    ),
}


@pytest.fixture(params=OFFLOADS)
def offloaded(request, llava, tmp_path):
    """The tiny LLaVA with weights that live elsewhere."""
    model = OFFLOADS[request.param](llava(), str(tmp_path / "weights"))
    assert model.model.language_model.layers[1].self_attn.q_proj.weight.is_meta
    return model


@pytest.fixture
def adapted(moka):
    """adapted(base) -> a PeftModel with the same random adapter every time."""

    def build(base, **overrides):
        torch.manual_seed(0)
        return get_peft_model(base, moka(init_lora_weights=False, **overrides)).eval()

    return build


def test_new_adapter_computes_where_the_base_does(offloaded, adapted, llava, batch, tmp_path):
    inputs = batch("black", None, "white")
    plain, model = adapted(llava()), adapted(offloaded)
    assert torch.equal(model(**inputs).logits, plain(**inputs).logits)
    with model.disable_adapter():
        assert torch.equal(model(**inputs).logits, llava()(**inputs).logits)
    model.save_pretrained(tmp_path / "adapter")
    saved = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert saved and all(torch.equal(value, plain.state_dict()[at(name)]) for name, value in saved.items())


def test_generates_on_a_partly_offloaded_base(adapted, llava, batch, tmp_path):
    plain, model = adapted(llava()), adapted(OFFLOADS["one layer to disk"](llava(), str(tmp_path / "weights")))
    prompt = batch("black", padding_side="left")
    assert torch.equal(model.generate(**prompt, max_new_tokens=3), plain.generate(**prompt, max_new_tokens=3))


def at(name):
    """The name in the model of a saved weight."""
    return name.removesuffix(".weight") + ".default.weight"


def test_adapter_trains_on_an_offloaded_base(offloaded, adapted, llava, batch):
    inputs = batch("black", None, "white")
    gradients = []
    for model in (adapted(llava()), adapted(offloaded)):
        model.train()(**inputs, labels=labels_after_question(inputs)).loss.backward()
        gradients.append({name: p.grad for name, p in model.named_parameters() if ".moka_" in name})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, msg=name)  # an offloaded base multiplies by itself


def test_saved_adapter_loads_onto_an_offloaded_base(offloaded, adapted, llava, batch, tmp_path):
    plain = adapted(llava())
    plain.save_pretrained(tmp_path / "adapter")
    inputs = batch("black", None, "white")
    loaded = PeftModel.from_pretrained(offloaded, tmp_path / "adapter").eval()
    assert torch.equal(loaded(**inputs).logits, plain(**inputs).logits)


def test_adapters_that_are_offloaded_themselves(adapted, llava, batch, tmp_path):
    """PEFT places a loaded adapter with its layer: on disk, if that is where the layer is."""
    inputs = batch("black", None, "white")
    plain = adapted(llava())
    plain.save_pretrained(tmp_path / "adapter")
    loaded = dispatch_model(
        PeftModel.from_pretrained(llava(), tmp_path / "adapter").eval(),
        place(llava(), "base_model.model."),
        main_device="cpu",
        offload_dir=str(tmp_path / "weights"),
        force_hooks=True,
    )
    layers = [module for module in loaded.modules() if isinstance(module, MokaLinear)]
    assert {layer.moka_A_visual["default"].weight.device.type for layer in layers} == {"cpu", "meta"}
    for _ in range(2):
        assert torch.equal(loaded(**inputs).logits, plain(**inputs).logits)
    assert {layer.moka_A_visual["default"].weight.device.type for layer in layers} == {"cpu", "meta"}


@pytest.mark.parametrize("kind", ["all to cpu", "one layer to disk"])
def test_merging_into_an_offloaded_base(adapted, llava, batch, tmp_path, kind):
    inputs = batch("black", None, "white")
    plain, model = adapted(llava()), adapted(OFFLOADS[kind](llava(), str(tmp_path / "weights")))
    plain.merge_adapter()
    model.merge_adapter()
    assert torch.equal(model(**inputs).logits, plain(**inputs).logits)
    plain.unmerge_adapter()
    model.unmerge_adapter()
    assert torch.equal(model(**inputs).logits, plain(**inputs).logits)
