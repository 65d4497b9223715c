"""What `moka train` leaves for a model of transformers: it opens from anywhere, and its card says how."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
import yaml
from transformers import AutoProcessor

import moka_peft  # noqa: F401 - as the card says
from moka_peft.cli import call
from moka_peft.training import load_adapted

from .conftest import ANSWERS, QUESTION, grey

RECIPE = """\
model: {{name: {model}}}
data:
  train: {{path: {data}}}
  eval: {{path: {data}}}
adapter: {{r: 4, method: {method}}}
training: {{steps: 25, batch_size: 3, learning_rate: 1e-2, num_threads: 1, scheduler: constant}}
evaluation: {{max_new_tokens: 4}}
train: {{projectors: true, towers: true}}
output_dir: {out}
"""


@pytest.fixture(scope="module", params=["moka", "lora"])
def moved(request, folder, tmp_path_factory) -> Path:
    """The folder of a run with relative paths and trained projectors and tower, moved after it ended."""
    root = tmp_path_factory.mktemp("run")
    rows = []
    for index, answer in enumerate(ANSWERS):
        grey(120 * index).save(root / f"{answer}.png")
        parts = [{"type": "image", "image": f"{answer}.png"}, {"type": "text", "text": QUESTION}]
        rows.append({"messages": [{"role": "user", "content": parts}, {"role": "assistant", "content": answer}]})
    (root / "data.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (root / "model").symlink_to(folder)
    settings = {"model": "./model", "data": "data.jsonl", "out": "out", "method": request.param}
    (root / "recipe.yaml").write_text(RECIPE.format(**settings))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        assert call(["train", "recipe.yaml"]) == 0
    return (root / "out").rename(root / "somewhere else")


def test_generate_needs_nothing_else(moved, capsys):
    for answer in ANSWERS:
        image = str(moved.parent / f"{answer}.png")
        assert call(["generate", "--adapter", str(moved), "--image", image, "--max-new-tokens", "4", QUESTION]) == 0
    assert capsys.readouterr().out.split() == list(ANSWERS)


def test_what_was_trained_is_there(moved):
    base = load_adapted(moved)[0].get_base_model()
    for part in (base.model.multi_modal_projector, base.model.vision_tower):
        before, after = (dict(m.named_parameters()) for m in (part.original_module, part.modules_to_save["default"]))
        assert before.keys() == after.keys()
        assert not all(torch.equal(before[name], after[name]) for name in before)
    assert AutoProcessor.from_pretrained(moved).image_token == "<image>"


def test_the_card_tells_data_settings_results_and_how_to_load(moved):
    card = (moved / "README.md").read_text()
    front = yaml.safe_load(card.split("---")[1])
    assert front["library_name"] == "peft"
    assert "base_model" not in front  # a folder on this disk is nothing that the hub could link to
    recipe = yaml.safe_load((moved / "recipe.yaml").read_text())
    for word in ("data.jsonl", "`learning_rate: 0.01`", "seed: 0", "projectors, towers", recipe["model"]["name"]):
        assert word in card, word
    metrics = json.loads((moved / "metrics.json").read_text())
    low, high = metrics["after"]["all"]["interval"]
    assert f"| all | 3 | 0.000 | 1.000 | {low:.3f} to {high:.3f} |" in card
    loading = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    assert len(loading) == 2 and all(code.startswith("import moka_peft") for code in loading)
    for code in loading:
        scope: dict = {}
        exec(code.replace("PATH_TO_THIS_FOLDER", str(moved)), scope)
        assert scope["model"].peft_config["default"].peft_type in ("MOKA", "LORA")
