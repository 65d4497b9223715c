"""docs/rivals.md: its table against the models, and every line of code in it."""

import re
import shlex
from pathlib import Path

import pytest
import torch
import yaml
from torch.utils.flop_counter import FlopCounterMode

from moka_peft import RoutingSpec
from moka_peft.cli import call
from moka_peft.training import load_recipe

from .adapting import METHODS, MODALITIES, OneLinear, adapt, adapter_weights
from .test_behaviours import ONE_WEIGHT, TEXT_PATH
from .test_counts import MATRICES

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "rivals.md").read_text(encoding="utf-8")
QUICK = "training.steps=1 training.batch_size=2 training.num_workers=0 data.train.size=4 data.eval.size=2".split()
ROWS = {
    cells[0].strip("`"): cells[1:]
    for line in PAGE.splitlines()
    if line.startswith("| `") and (cells := [cell.strip() for cell in line.strip("|").split(" | ")])
}


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def value_of(formula, **names):
    """What a formula of the table comes to: `r·(I + O)`, perhaps with a note."""
    return eval(formula.split("`")[1].replace("·", "*"), {}, names)


@pytest.fixture(params=METHODS)
def method(request):
    return request.param


@pytest.fixture
def model(method):
    ids = {"visual": (50,), "audio": (60,)}
    spec = RoutingSpec(placeholders=ids, user_open=((2, 3),), user_close=((4,),))
    return adapt(OneLinear(), method, spec, target_modules=["q_proj"], shared_growth=0.0)


SIZES = {"r": 3, "I": 16, "O": 12, "N": len(MODALITIES)}


def test_every_method_has_a_row():
    assert list(ROWS) == METHODS or set(ROWS) == set(METHODS)


def test_numbers_of_matrices(method):
    counts = [eval(cell, {}, {"N": 3}) for cell in ROWS[method][1:3]]
    assert counts == list(MATRICES[method])


def test_trained_parameters(method, model):
    assert value_of(ROWS[method][3], **SIZES) == sum(weight.numel() for _, weight in adapter_weights(model))


def test_multiply_adds(method, model):
    """Of a token more; those of a whole forward cancel."""
    counted = []
    for length in (4, 5):
        with torch.no_grad(), FlopCounterMode(display=False) as flops:
            model(torch.arange(10, 10 + length).unsqueeze(0))
        counted.append(flops.get_total_flops())
    base = 2 * SIZES["I"] * SIZES["O"]
    assert counted[1] - counted[0] - base == 2 * value_of(ROWS[method][4], **SIZES)


def test_merging(method):
    expected = "yes" if method in ONE_WEIGHT else "its text path" if method in TEXT_PATH else "no"
    assert ROWS[method][5].rstrip(" |") == expected


def test_python(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    for code in blocks("python"):
        exec(code, names)
    assert "trainable params" in capsys.readouterr().out
    assert type(names["again"].peft_config["default"]) is names["LoraMoeConfig"]


def test_the_named_configs_are_there():
    from moka_peft import baselines

    named = set(re.findall(r"`?(\w+Config)\b", PAGE))
    assert named == {name for name in baselines.__all__ if name.endswith("Config")}


def test_recipe(tmp_path):
    (snippet,) = blocks("yaml")
    text = yaml.safe_load((ROOT / "recipes" / "quickstart.yaml").read_text()) | yaml.safe_load(snippet)
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(text))
    assert load_recipe(tmp_path / "recipe.yaml").adapter.num_experts == 3


@pytest.mark.parametrize("line", blocks("bash")[0].splitlines())
def test_commands(line, monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    words = [word if not word.startswith("output_dir=") else f"output_dir={tmp_path}/run" for word in shlex.split(line)]
    assert words[0] == "moka" and call([*words[1:], *QUICK]) == 0
