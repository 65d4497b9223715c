"""Both forms there and back: tensors equal, projectors that compute what the authors' do."""

import json

import pytest
import torch
from peft import PeftModel, get_peft_model
from safetensors.torch import load_file, save_file

from moka_peft import MokaConfig, Routing
from moka_peft.training.authors import export_adapter, import_adapter
from moka_peft.training.earlier_parts import FILE, PREFIX, WEIGHTS, start_from

from .conftest import STEM

FORMS = ("avt", "vt")
FOR_TEXT = (".word_embeddings.", ".position_embeddings.", ".intermediate.", ".output.", ".cls.")
SETTINGS = {
    "avt": {
        "modalities": ("text", "visual", "audio"),
        "scale_before_attention": True,
        "instruction_span": "contiguous",
    },
    "vt": {"modalities": ("text", "visual"), "cross_scale": 0.05},
}


def is_for_text(key):
    in_attention = "attention." in key  # which has an `output` of its own
    return any(word in key for word in FOR_TEXT) and not (in_attention and ".output." in key)


def saved(folder, name="adapter_model.bin"):
    return torch.load(folder / name, weights_only=True)


def assert_same(was, now):
    assert was.keys() == now.keys()
    for key in was:
        assert torch.equal(was[key], now[key]) and was[key].dtype == now[key].dtype, key


@pytest.mark.parametrize("projectors", [True, False])
@pytest.mark.parametrize("form", FORMS)
def test_theirs_there_and_back(form, projectors, theirs, tmp_path):
    their = theirs(form, projectors=projectors)
    source = their.write(tmp_path / "source")
    found = import_adapter(source, tmp_path / "ours")
    factors = found.checkpoint.factors
    assert (factors.form, factors.layers, len(factors.modules)) == (form, 2, 7)
    done = export_adapter(tmp_path / "ours", tmp_path / "back")
    back = saved(tmp_path / "back")
    if form == "vt":
        unused = {key: back.pop(key) for key in list(back) if ".lora_B.image." in key}
        assert len(unused) == done.unused == 14 and not any(zeros.any() for zeros in unused.values())
        assert all(zeros.shape == back[key.replace("image", "text")].shape for key, zeros in unused.items())
    assert_same({key: weight for key, weight in their.adapter.items() if "lora_B.image" not in key}, back)
    assert (tmp_path / "back" / "non_lora_trainables.bin").exists() is projectors
    if projectors:
        kept = {key: weight for key, weight in their.beside.items() if not is_for_text(key)}
        assert_same(kept, saved(tmp_path / "back", "non_lora_trainables.bin"))
    written = json.loads((tmp_path / "back" / "adapter_config.json").read_text())
    assert {key: written[key] for key in their.config} == their.config


@pytest.mark.parametrize(("form", "name"), [("avt", ".default"), ("vt", ".default"), ("vt", "")])
def test_keys_may_be_written_in_other_ways(form, name, theirs, tmp_path):
    their = theirs(form, projectors=False, stem="base_model.model.model.layers", name=name)
    import_adapter(their.write(tmp_path / "source"), tmp_path / "ours")
    export_adapter(tmp_path / "ours", tmp_path / "back")
    back = saved(tmp_path / "back")
    assert set(back) == set(their.adapter)
    keys = load_file(tmp_path / "ours" / "adapter_model.safetensors")
    assert all(key.startswith("base_model.model.model.layers.") and ".default" not in key for key in keys)


def test_an_adapter_name_may_come_before_the_modality(theirs, tmp_path):
    their = theirs("vt", projectors=False)
    their.adapter = {k.replace("lora_A.", "lora_A.default."): w for k, w in their.adapter.items() if "lora_A" in k} | {
        k.replace("lora_B.", "lora_B.default."): w for k, w in their.adapter.items() if "lora_B" in k
    }
    assert import_adapter(their.write(tmp_path / "source"), tmp_path / "ours").checkpoint.factors.form == "vt"


def test_safetensors_are_read_too(theirs, tmp_path):
    their = theirs("avt")
    source = their.write(tmp_path / "source")
    for name, tensors in (("adapter_model", their.adapter), ("non_lora_trainables", their.beside)):
        (source / f"{name}.bin").unlink()
        save_file({key: weight.contiguous() for key, weight in tensors.items()}, source / f"{name}.safetensors")
    found = import_adapter(source, tmp_path / "ours")
    assert found.checkpoint.found.files == [
        "adapter_config.json",
        "adapter_model.safetensors",
        "non_lora_trainables.safetensors",
    ]


def test_the_whole_model_of_the_visual_text_code(theirs, tmp_path):
    """It has no config, and its frozen weights are left alone."""
    their = theirs("vt")
    (tmp_path / "source").mkdir()
    frozen = {"base_model.model.lm_head.weight": torch.zeros(4, 4)}
    frozen["base_model.model.model.language_model.layers.0.self_attn.q_proj.base_layer.weight"] = torch.zeros(4, 4)
    save_file(their.adapter | their.beside | frozen, tmp_path / "source" / "model.safetensors")
    found = import_adapter(tmp_path / "source", tmp_path / "ours")
    assert len(found.checkpoint.found.frozen) == 2
    assert found.assumed == {"lora_alpha": 16, "lora_dropout": 0.05, "cross_scale": 0.05}
    assert (found.config.r, found.config.lora_alpha) == (3, 16)
    given = import_adapter(tmp_path / "source", tmp_path / "given", lora_alpha=6, lora_dropout=0.0, cross_scale=0.5)
    assert given.assumed == {} and given.config.cross_scale == 0.5


def test_projectors_that_did_not_train_are_exported_too(theirs, tmp_path):
    """A run that began with an earlier one's keeps them in a file of their own."""
    import_adapter(theirs("avt").write(tmp_path / "source"), tmp_path / "ours")
    export_adapter(tmp_path / "ours", tmp_path / "expected")
    weights = load_file(tmp_path / "ours" / WEIGHTS)
    kept = {key: weights.pop(key) for key in list(weights) if "_projector." in key}
    save_file(weights, tmp_path / "ours" / WEIGHTS)
    save_file({key.removeprefix(PREFIX): weight for key, weight in kept.items()}, tmp_path / "ours" / FILE)
    export_adapter(tmp_path / "ours", tmp_path / "back")
    assert_same(*(saved(tmp_path / name, "non_lora_trainables.bin") for name in ("expected", "back")))


def test_stage_1_gives_projectors_to_begin_with(theirs, composite, tmp_path):
    their = theirs("avt")
    source = tmp_path / "source"
    source.mkdir()
    for kind, name in (("visual", "vl_projector"), ("audio", "al_projector")):
        weights = {k.removeprefix("base_model.model."): w for k, w in their.beside.items() if f".{name}." in k}
        weights["model.embed_tokens.weight"] = torch.zeros(3, 4)
        torch.save(weights, source / f"{kind}_pretrain.bin")
    found = import_adapter(source, tmp_path / "ours")
    assert found.checkpoint.factors is None
    assert found.config.modules_to_save == ["audio_projector", "vision_projector"]
    assert found.checkpoint.dropped["model.embed_tokens.weight"] == 1
    model = composite("avt")
    names = start_from(model, [tmp_path / "ours"])
    import_adapter(their.write(tmp_path / "whole"), tmp_path / "expected")
    expected = load_file(tmp_path / "expected" / "adapter_model.safetensors")
    own = model.state_dict()
    assert len(names) == sum("projector" in key for key in expected) == 2 * 61
    assert all(torch.equal(own[name].float(), expected[f"base_model.model.{name}"]) for name in names)
    opened = PeftModel.from_pretrained(composite("avt"), str(tmp_path / "ours")).base_model.model
    assert torch.equal(opened.vision_projector.queries, model.vision_projector.queries)
    with pytest.raises(ValueError, match="`lora_alpha` is set, but the source holds projectors alone"):
        import_adapter(source, tmp_path / "other", lora_alpha=8)


@pytest.mark.parametrize("suffixes", [("", "_query"), ("",)])
@pytest.mark.parametrize("form", FORMS)
@torch.no_grad()
def test_imported_projectors_compute_what_theirs_do(form, suffixes, theirs, composite, tmp_path):
    from .their_projector import TheirProjector

    their = theirs(form)
    if suffixes == ("",):
        kinds = {"vl_projector": ("visual", 8), "al_projector": ("audio", 12), "multi_modal_projector": ("visual", 8)}
        their.projectors = {name: TheirProjector(*kinds[name], 16, suffixes=suffixes) for name in their.projectors}
        their.beside = {
            f"base_model.model.model.{name}.{key}": weight.clone()
            for name, part in their.projectors.items()
            for key, weight in part.named_parameters()
        }
    import_adapter(their.write(tmp_path / "source"), tmp_path / "ours")
    model = PeftModel.from_pretrained(composite(form), str(tmp_path / "ours")).base_model.model
    for name, part in their.projectors.items():
        ours = model.audio_projector if name == "al_projector" else model.vision_projector
        features = torch.randn(3, 5, 12 if name == "al_projector" else 8, dtype=torch.float64)
        assert (ours(features) - part.double()(features)).abs().max() <= 1e-12


@pytest.mark.parametrize("form", FORMS)
@torch.no_grad()
def test_ours_there_and_back(form, composite, tmp_path):
    parts = [f"{part}_projector" for part in (("vision", "audio") if form == "avt" else ("vision",))]
    config = MokaConfig(r=3, lora_alpha=6, modules_to_save=parts, init_lora_weights=False, **SETTINGS[form])
    model = get_peft_model(composite(form), config).eval()
    for name, weight in model.named_parameters():
        if "modules_to_save" in name:
            weight.add_(torch.randn_like(weight))
    model.save_pretrained(tmp_path / "ours")
    export_adapter(tmp_path / "ours", tmp_path / "theirs")
    assert all(key.startswith(STEM[form]) for key in saved(tmp_path / "theirs"))
    import_adapter(tmp_path / "theirs", tmp_path / "again")
    assert_same(*(load_file(tmp_path / name / "adapter_model.safetensors") for name in ("ours", "again")))
    again = PeftModel.from_pretrained(composite(form), str(tmp_path / "again")).eval()
    media = [5, 5, 5] if form == "vt" else [5, 5, 5, 7, 7, 7]
    ids = torch.tensor([[1, *media, 8, 9, 10]])
    kinds = torch.tensor([[0, *({5: 1, 7: 2}[token] for token in media), 0, 0, 0]])
    routing = Routing(kinds, torch.tensor([[0, *(1 for _ in media), 1, 1, 0]]))
    inputs = {"input_ids": ids, "pixel_values": torch.randn(1, 3, 16, 16, dtype=torch.float64)}
    if form == "avt":
        inputs["input_features"] = torch.randn(1, 8, 10, dtype=torch.float64)
    assert torch.equal(model(**inputs, routing=routing).logits, again(**inputs, routing=routing).logits)
