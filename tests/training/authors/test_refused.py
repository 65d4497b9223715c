"""What cannot be imported or exported is refused, and nothing is written."""

import json
import os
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

from moka_peft import MokaConfig
from moka_peft.baselines.moka_shared_a import MokaSharedAConfig
from moka_peft.training.authors import export_adapter, import_adapter

from .conftest import STEM

Q0 = f"{STEM['avt']}.0.self_attn.q_proj."
VL = "base_model.model.model.vl_projector."


def change(name, value):
    return lambda their: their.config.update({name: value})


def drop(key):
    return lambda their: (their.adapter.pop(key, None), their.beside.pop(key, None))


def put(key, shape=(3, 16), beside=False):
    return lambda their: (their.beside if beside else their.adapter).update({key: torch.zeros(shape)})


IMPORTS = {
    "unequal ranks by name": ("avt", change("r", 345), "a rank of its own for each modality"),
    "two digits": ("avt", change("r", 33), "a digit per modality"),
    "another rank": ("avt", change("r", 444), "but the weights have rank 3"),
    "another rank, vt": ("vt", change("r", 4), "but the weights have rank 3"),
    "bias": ("avt", change("bias", "all"), "bias is 'all' in adapter_config.json: expected 'none'"),
    "rslora": ("vt", change("use_rslora", True), "use_rslora is True"),
    "dora": ("vt", change("use_dora", True), "use_dora is True"),
    "targets": ("avt", change("target_modules", ["q_proj"]), "names the target modules q_proj, but the weights are of"),
    "a lost factor": ("avt", drop(f"{Q0}lora_A1.weight"), "`layers.0.self_attn.q_proj.moka_A_visual`"),
    "unequal ranks": (
        "avt",
        put(f"{Q0}lora_A1.weight", (2, 16)),
        "moka_A_visual of layers.0.self_attn.q_proj is [2, 16]",
    ),
    "another width": ("avt", put(f"{Q0}lora_A2.weight", (3, 8)), "expected [3, 16]"),
    "a flat factor": ("avt", put(f"{Q0}lora_B0.weight", (16,)), "expected [out, 3]"),
    "both forms": ("avt", put(f"{Q0}lora_A.text.weight"), "more than one form: 'avt', 'vt'"),
    "two adapters": ("avt", put(f"{Q0}lora_A0.other.weight"), "more than one adapter name: '', 'other'"),
    "nothing used": (
        "vt",
        lambda t: [t.adapter.pop(key) for key in list(t.adapter) if "lora_B.image" not in key],
        "holds no adapter of the authors' forms",
    ),
    "a lost layer": ("avt", put(f"{STEM['avt']}.5.self_attn.q_proj.lora_A0.weight"), "of all 6 layers"),
    "an unknown weight": (
        "avt",
        put("base_model.model.model.seg_module.weight"),
        "base_model.model.model.seg_module.weight",
    ),
    "ordinary LoRA": (
        "avt",
        lambda t: t.adapter.clear() or put(f"{Q0}lora_A.weight")(t),
        "An ordinary LoRA needs no import",
    ),
    "embeddings": ("avt", put("base_model.model.model.embed_tokens.weight", beside=True), "embed_tokens.weight"),
    "a torn projector": (
        "avt",
        drop(f"{VL}visual_ln.bias"),
        "vl_projector lacks 1 weights, the first is 'visual_ln.bias'",
    ),
    "no queries": ("avt", drop(f"{VL}visual_query_tokens"), "the first is 'visual_query_tokens'"),
    "a strange projector": ("avt", put(f"{VL}visual_gate.weight", beside=True), "has no place for: visual_gate.weight"),
    "a deeper projection": ("avt", put(f"{VL}visual_proj.4.weight", beside=True), "no place for: visual_proj.4.weight"),
    "two projectors": (
        "avt",
        lambda t: t.beside.update({k.replace("vl_projector", "multi_modal_projector"): w for k, w in t.beside.items()}),
        "two vision_projectors",
    ),
    "the same key twice": ("avt", put(f"{Q0}lora_A0.weight", beside=True), "both hold"),
}


@pytest.mark.parametrize("case", IMPORTS)
def test_imports_refused(case, theirs, tmp_path):
    form, spoil, message = IMPORTS[case]
    their = theirs(form)
    spoil(their)
    source = their.write(tmp_path / "source")
    with pytest.raises(ValueError) as error:
        import_adapter(source, tmp_path / "ours")
    assert message in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_settings_that_contradict_the_config(theirs, tmp_path):
    source = theirs("vt").write(tmp_path / "source")
    with pytest.raises(ValueError, match="`cross_scale` is 1.0, but adapter_config.json says attn_weight: 0.05"):
        import_adapter(source, tmp_path / "ours", cross_scale=1.0)


class Harmful:
    def __reduce__(self):
        return (Path.touch, (Path("harmed"),))


FILES = {
    "more than tensors": (lambda path: torch.save({"a": Harmful()}, path), "cannot be read as tensors"),
    "no state dict": (lambda path: torch.save([torch.zeros(1)], path), "is no state dict"),
    "nested": (lambda path: torch.save({"state": {"a": torch.zeros(1)}}, path), "is no state dict"),
    "torn": (lambda path: path.write_bytes(path.read_bytes()[:500]), "cannot be read as tensors"),
    "empty": (lambda path: path.write_bytes(b""), "cannot be read as tensors"),
    "text": (lambda path: path.write_text("version https://git-lfs"), "cannot be read as tensors"),
    "damaged": (lambda path: path.write_bytes(b"\x80\x02a"), "cannot be read as tensors"),
}


@pytest.mark.parametrize("case", FILES)
def test_files_refused(case, theirs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    spoil, message = FILES[case]
    source = theirs("avt").write(tmp_path / "source")
    spoil(source / "adapter_model.bin")
    with pytest.raises(ValueError, match=message):
        import_adapter(source, tmp_path / "ours")
    assert not (tmp_path / "harmed").exists() and not (tmp_path / "ours").exists()


def test_folders_refused(theirs, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"expected one of adapter_model\.bin"):
        import_adapter(tmp_path, tmp_path / "ours")
    source = theirs("avt").write(tmp_path / "source")
    (source / "adapter_config.json").write_text("{")
    with pytest.raises(ValueError, match="is not valid JSON"):
        import_adapter(source, tmp_path / "ours")
    save_file({"a": torch.zeros(1)}, source / "adapter_model.safetensors")
    with pytest.raises(ValueError, match="Keep the one to be read"):
        import_adapter(source, tmp_path / "ours")


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "adapter_config.json"])
def test_a_damaged_file_of_ours_is_named(name, theirs, tmp_path):
    import_adapter(theirs("avt").write(tmp_path / "source"), tmp_path / "ours")
    (tmp_path / "ours" / name).write_bytes((tmp_path / "ours" / name).read_bytes()[:100])
    with pytest.raises(ValueError, match=rf"`source`: .*{name} cannot be read: .* Copy it again"):
        export_adapter(tmp_path / "ours", tmp_path / "back")


def test_a_folder_without_its_adapter_is_no_stage_1(theirs, tmp_path):
    source = theirs("avt").write(tmp_path / "source")
    (source / "adapter_model.bin").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"is not whole: .* has adapter_config\.json, but none of adapter_model"
    ):
        import_adapter(source, tmp_path / "ours")
    (source / "adapter_config.json").unlink()
    assert import_adapter(source, tmp_path / "ours").checkpoint.factors is None


def test_the_current_folder_and_links_are_targets(theirs, tmp_path, monkeypatch):
    source = theirs("avt").write(tmp_path / "source")
    for name in ("here", "real"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "here")
    import_adapter(source, ".")
    (tmp_path / "link").symlink_to("real")
    for overwrite in (False, True):
        import_adapter(source, tmp_path / "link", overwrite=overwrite)
    assert (tmp_path / "link").is_symlink()
    for name in ("here", "real"):
        assert (tmp_path / name / "adapter_model.safetensors").is_file()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["here", "link", "real", "source"]


def test_a_target_comes_back_where_it_cannot_be_replaced(theirs, tmp_path, monkeypatch):
    source = theirs("avt").write(tmp_path / "source")
    import_adapter(source, tmp_path / "ours")
    replace = os.replace

    def fails(old, new):
        if "partial" in str(old):
            raise OSError("full")
        replace(old, new)

    monkeypatch.setattr(os, "replace", fails)
    with pytest.raises(OSError, match="full"):
        import_adapter(source, tmp_path / "ours", overwrite=True)
    assert (tmp_path / "ours" / "adapter_model.safetensors").is_file()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ours", "source"]


def test_targets_refused(theirs, tmp_path):
    source = theirs("avt").write(tmp_path / "source")
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="`target` is a file"):
        import_adapter(source, tmp_path / "file")
    with pytest.raises(ValueError, match="`target` is the source"):
        import_adapter(source, source, overwrite=True)
    import_adapter(source, tmp_path / "ours")
    with pytest.raises(ValueError, match=r"`target` is not empty: .* Choose another folder, or `--overwrite`"):
        import_adapter(source, tmp_path / "ours")
    (tmp_path / "ours" / "adapter_model.safetensors").write_bytes(b"")
    import_adapter(source, tmp_path / "ours", overwrite=True)
    assert load_file(tmp_path / "ours" / "adapter_model.safetensors")
    (tmp_path / "ours" / "thesis.txt").touch()
    with pytest.raises(ValueError, match=r"holds files of something else \(thesis.txt\)"):
        import_adapter(source, tmp_path / "ours", overwrite=True)


def test_a_crash_leaves_what_was_there(theirs, tmp_path, monkeypatch):
    source = theirs("avt").write(tmp_path / "source")
    import_adapter(source, tmp_path / "ours")
    before = {path.name: path.read_bytes() for path in (tmp_path / "ours").iterdir()}
    monkeypatch.setattr(MokaConfig, "save_pretrained", lambda *args, **kwargs: (_ for _ in ()).throw(OSError("full")))
    for target in ("ours", "new"):
        with pytest.raises(OSError, match="full"):
            import_adapter(source, tmp_path / target, overwrite=True)
    assert {path.name: path.read_bytes() for path in (tmp_path / "ours").iterdir()} == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ours", "source"]


AVT = {"modalities": ("text", "visual", "audio"), "scale_before_attention": True, "instruction_span": "contiguous"}
EXPORTS = {
    "interaction": (AVT | {"interaction": "mean"}, None, "`interaction` is 'mean': expected 'cross_attention'"),
    "a lambda each": (AVT | {"cross_scale": (1.0, 0.5)}, None, "one per modality"),
    "ranks by pattern": (AVT | {"rank_pattern": {"q_proj": 2}}, None, "`rank_pattern`"),
    "alphas by pattern": (AVT | {"alpha_pattern": {"q_proj": 2}}, None, "`alpha_pattern`"),
    "rslora": (AVT | {"use_rslora": True}, None, "`use_rslora` is True"),
    "some layers": (AVT | {"layers_to_transform": [0]}, None, "`layers_to_transform`"),
    "excluded": (AVT | {"exclude_modules": ["k_proj"]}, None, "`exclude_modules`"),
    "bias": (AVT | {"bias": "all"}, None, "`bias` is 'all'"),
    "a high rank": (AVT | {"r": 16}, None, "at most 9"),
    "a mixture": (AVT | {"instruction_span": "tokens"}, None, "neither of the authors' forms"),
    "other modalities": (AVT | {"modalities": ("text", "visual", "depth")}, None, "`modalities` is"),
    "the other form": (AVT, "vt", "`scale_before_attention` is True: expected False for the form 'vt'"),
    "a pattern of targets": (
        AVT | {"target_modules": r".*\.0\..*\.(q|k)_proj|.*\.1\..*\.q_proj"},
        None,
        "cannot be named",
    ),
}


@pytest.mark.parametrize("case", EXPORTS)
def test_exports_refused(case, tiny_lm, tmp_path):
    settings, form, message = EXPORTS[case]
    get_peft_model(tiny_lm(), MokaConfig(**settings)).save_pretrained(tmp_path / "ours")
    with pytest.raises(ValueError) as error:
        export_adapter(tmp_path / "ours", tmp_path / "theirs", form=form)
    assert message in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["ours"]


def test_other_weights_are_not_exported(tiny_lm, tmp_path):
    get_peft_model(tiny_lm(), MokaConfig(**AVT, modules_to_save=["lm_head"])).save_pretrained(tmp_path / "ours")
    with pytest.raises(ValueError, match=r"no place for: base_model\.model\.lm_head\.weight"):
        export_adapter(tmp_path / "ours", tmp_path / "theirs")
    get_peft_model(tiny_lm(), LoraConfig(target_modules=["q_proj"])).save_pretrained(tmp_path / "lora")
    with pytest.raises(ValueError, match="LORA adapter: expected MOKA"):
        export_adapter(tmp_path / "lora", tmp_path / "theirs")
    get_peft_model(tiny_lm(), MokaSharedAConfig(**AVT)).save_pretrained(tmp_path / "one A")
    with pytest.raises(ValueError, match="SHARED_A adapter: expected MOKA"):
        export_adapter(tmp_path / "one A", tmp_path / "theirs")
    with pytest.raises(FileNotFoundError, match=r"has no adapter_config\.json"):
        export_adapter(tmp_path, tmp_path / "theirs")


def test_a_projector_of_another_type_is_not_exported(theirs, tmp_path):
    import_adapter(theirs("avt").write(tmp_path / "source"), tmp_path / "ours")
    path = tmp_path / "ours" / "adapter_model.safetensors"
    weights = load_file(path)
    weights["base_model.model.vision_projector.proj.4.weight"] = torch.zeros(2)
    save_file(weights, path)
    with pytest.raises(ValueError, match=r"no place for: proj\.4\.weight"):
        export_adapter(tmp_path / "ours", tmp_path / "theirs")


def test_a_spoilt_origin_is_named(theirs, tmp_path):
    import_adapter(theirs("avt").write(tmp_path / "source"), tmp_path / "ours")
    (tmp_path / "ours" / "authors.json").write_text(json.dumps({"shape": "avt"}))
    with pytest.raises(ValueError, match=r"authors\.json is not what an import wrote"):
        export_adapter(tmp_path / "ours", tmp_path / "theirs")
