"""The examples: a MokA script is its LoRA script with another config, and each trains with --tiny."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import sys
from pathlib import Path

import pytest
import soundfile
import torch
import transformers
from packaging.version import Version
from peft import PeftConfig
from safetensors.torch import load_file
from transformers import AutoProcessor

from moka_peft import MokaConfig

EXAMPLES = Path(__file__).parents[2] / "examples"
MODALITIES = {
    "qwen2_5_vl_images": ("text", "visual"),
    "qwen2_audio_speech": ("text", "audio"),
    "qwen2_5_omni_audio_video": ("text", "visual", "audio"),
}
NEEDS_5_18 = {"qwen2_5_vl_images"}  # TRL refuses assistant-only loss on images with older transformers
# TRL turns checkpointing on by a name that transformers 5.23 deprecates, and the Trainer asks for pinned memory.
pytestmark = [
    pytest.mark.filterwarnings("ignore:`gradient_checkpointing` is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:'pin_memory' argument is set as true but no accelerator:UserWarning"),
]


@pytest.fixture
def load(monkeypatch):
    """load("qwen2_audio_speech_lora") -> the script as a module, with its folder importable as when it is run."""
    monkeypatch.syspath_prepend(str(EXAMPLES))

    def build(name):
        specification = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
        module = importlib.util.module_from_spec(specification)
        specification.loader.exec_module(module)
        return module

    yield build
    sys.modules.pop("tiny", None)


def test_every_script_is_in_the_table():
    scripts = {path.stem for path in EXAMPLES.glob("*_*.py")}
    assert scripts == {f"{name}_{method}" for name in MODALITIES for method in ("lora", "moka")}
    table = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    assert all(f"({script}.py)" in table for script in scripts)


@pytest.mark.parametrize("name", MODALITIES)
def test_the_config_and_its_import_are_the_whole_change(name):
    before, after = ((EXAMPLES / f"{name}_{method}.py").read_text().splitlines() for method in ("lora", "moka"))
    changed = [line for line in difflib.ndiff(before, after) if line[0] in "-+" and line[2:].strip()]
    config = next(line for line in before if "LoraConfig(" in line)
    assert [line for line in changed if "import" not in line] == [
        f"- {config}",
        f"+ {config.replace('LoraConfig', 'MokaConfig')}",
    ]
    assert {line for line in changed if "import" in line} <= {
        "- from peft import LoraConfig",
        "- from peft import LoraConfig, get_peft_model",
        "+ from peft import get_peft_model",
        "+ from moka_peft import MokaConfig",
    }


@pytest.mark.parametrize("method", ["lora", "moka"])
@pytest.mark.parametrize("name", MODALITIES)
def test_trains_with_tiny(load, name, method, tmp_path):
    if name in NEEDS_5_18 and Version(transformers.__version__) < Version("5.18"):
        pytest.skip("needs transformers 5.18")
    load(f"{name}_{method}").main(["--tiny", "--output", str(tmp_path)])
    weights = load_file(tmp_path / "adapter_model.safetensors")
    trained = [value for key, value in weights.items() if key.endswith(("moka_B.weight", "lora_B.weight"))]
    assert trained and all(value.abs().max() > 0 for value in trained)  # B starts at zero
    config = PeftConfig.from_pretrained(tmp_path)
    assert isinstance(config, MokaConfig) == (method == "moka")
    if isinstance(config, MokaConfig):
        assert config.modalities == MODALITIES[name] and config.routing is not None


@pytest.mark.parametrize(
    "name, tiny", [("qwen2_audio_speech", "qwen2_audio"), ("qwen2_5_omni_audio_video", "qwen2_5_omni")]
)
def test_collator_puts_loss_on_the_answer_alone(load, name, tiny, tmp_path):
    script = load(f"{name}_moka")
    folder, data = getattr(importlib.import_module("tiny"), tiny)(tmp_path)
    processor = AutoProcessor.from_pretrained(folder)
    batch = script.collate(processor, [script.read_rows(data)[index] for index in (0, -1)])
    labels, ids = batch["labels"], batch["input_ids"]
    assert [processor.decode(row[row != -100]) for row in labels] == ["low<|im_end|>\n", "high<|im_end|>\n"]
    assert torch.equal(labels[labels != -100], ids[labels != -100])
    asked = processor.batch_decode(ids.masked_fill(labels != -100, processor.tokenizer.pad_token_id))
    assert all("Which is it?" in text and "low" not in text and "high" not in text for text in asked)


def test_audio_at_another_rate_is_named(load, tmp_path):
    soundfile.write(tmp_path / "slow.wav", [0.0] * 800, 8_000)
    with pytest.raises(ValueError, match=r"slow\.wav: expected 16000 Hz, got 8000. Convert it"):
        load("qwen2_audio_speech_lora").read_audio(str(tmp_path / "slow.wav"))
