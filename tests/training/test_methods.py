"""Every method from a recipe to an answer: trained, opened again, asked, planned, validated, resumed."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from moka_peft.cli import call
from moka_peft.training import load_adapted, load_recipe
from moka_peft.training.methods import CONFIGS, PEFTS_OWN, TITLES
from moka_peft.tuner.config import RoutedConfig

pytestmark = pytest.mark.usefixtures("without_plots")

QUICKSTART = str(Path(__file__).parents[2] / "recipes" / "quickstart.yaml")
SMALL = (
    "training.batch_size=4 training.num_workers=0 training.warmup_steps=0 data.train.size=12 data.eval.size=2 "
    "evaluation.batch_size=2 evaluation.max_new_tokens=2 evaluation.before=false adapter.r=2"
).split()


@pytest.fixture(params=CONFIGS)
def method(request):
    return request.param


@pytest.fixture
def train(tmp_path: Path):
    """train(method, ...) -> the folder of a run of the quickstart recipe on a few samples."""

    def run(method: str, *settings: str) -> Path:
        chosen = ["training.steps=3", *SMALL, *settings, f"adapter.method={method}", f"output_dir={tmp_path / 'run'}"]
        assert call(["train", QUICKSTART, *chosen]) == 0
        return tmp_path / "run"

    return run


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("image") / "strip.png"
    Image.fromarray(np.arange(32 * 128, dtype=np.uint8).reshape(32, 128)).save(path)
    return path


def test_from_a_recipe_to_an_answer(method: str, train, image: Path, capsys):
    out = train(method)
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["steps"] == 3 and metrics["after"]["all"]["total"] == 2
    check_adapter(out, method)

    card = (out / "README.md").read_text()
    assert f"{TITLES[method]} adapter for `tiny-avt`" in card and f"\n- {method}\n" in card
    assert load_recipe(out / "recipe.yaml").adapter.method == method

    capsys.readouterr()
    words = ["--adapter", str(out), "--image", str(image), "--max-new-tokens", "2", "Is it one?"]
    assert call(["generate", *words]) == 0
    assert capsys.readouterr().out.count("\n") == 1


def check_adapter(out: Path, method: str) -> None:
    """That a run's folder opens as the method that trained, with weights that have moved."""
    model, processor = load_adapted(out)
    config = model.peft_config["default"]
    assert type(config) is CONFIGS[method] and processor.image_token == "<image>"
    assert getattr(config, "use_dora", False) == (method == "dora")
    assert isinstance(config, RoutedConfig) == (method not in PEFTS_OWN) and config.r == 2
    weights = load_file(out / "adapter_model.safetensors")
    second = [weight for name, weight in weights.items() if ".moka_B" in name or ".lora_B." in name]
    assert sum(bool(weight.any()) for weight in second) > len(second) / 2  # they began at zero


@pytest.mark.parametrize("ours", ["lora_moe", "imod"])  # each with a loss of its own
def test_an_interrupted_run_goes_on_to_the_same_end(ours: str, train):
    out = train(ours, "training.save_steps=2")
    whole = load_file(out / "adapter_model.safetensors")
    for name in ("metrics.json", "adapter_model.safetensors", "checkpoints/checkpoint-3"):
        (out / name).rename(out.parent / name.replace("/", "_"))
    train(ours, "training.save_steps=2", "resume=true")
    again = load_file(out / "adapter_model.safetensors")
    assert whole.keys() == again.keys() and all(torch.equal(whole[name], again[name]) for name in whole)


def test_it_is_validated(method: str, capsys):
    assert call(["validate", QUICKSTART, *SMALL, f"adapter.method={method}"]) == 0
    assert capsys.readouterr().out.endswith("is valid\n")


def test_it_is_planned(method: str, capsys):
    """With dropout, of which the kernels that MokA has on a GPU keep no mask."""
    settings = ["adapter.r=2", "adapter.lora_dropout=0.1", f"adapter.method={method}"]
    assert call(["plan", QUICKSTART, "--json", *settings]) == 0
    facts = json.loads(capsys.readouterr().out)
    adapter = facts["parts"]["adapter"]
    assert adapter["trained"] == adapter["parameters"] > 0
    assert facts["bytes_per_gpu"]["activations"]["decoder"] > 0


@pytest.mark.parametrize("ours", ["moka", "uni_modal_lora"])
@pytest.mark.parametrize(
    ("modalities", "expected"),
    [
        ("[text,visual]", "`routing` holds tokens of modality 'audio', but the adapter's modalities are"),
        ("[text,visual,audio,thermal]", "`routing`: no placeholder token found for modality 'thermal'"),
    ],
)
def test_modalities_that_are_not_the_models_stop_the_run(ours: str, modalities: str, expected: str, capsys, tmp_path):
    settings = [*SMALL, f"adapter.method={ours}", f"adapter.modalities={modalities}", "training.steps=3"]
    assert call(["train", QUICKSTART, *settings, f"output_dir={tmp_path / 'run'}"]) == 1
    assert expected in capsys.readouterr().err
