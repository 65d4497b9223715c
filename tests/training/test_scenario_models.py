"""The script that trains what the scenarios begin with: its sizes, and batches that other processes make."""

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

SCRIPT = Path(__file__).parents[2] / "scripts" / "build_scenario_models.py"


@pytest.fixture(scope="module")
def builder() -> Any:
    """The script as a module, importable by name, as a process that is forked needs it."""
    spec = importlib.util.spec_from_file_location("scenario_models_script", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.fixture(scope="module")
def tokenizer(builder: Any) -> Any:
    return builder.train_tokenizer(0)


def plan_of(builder: Any, size: str, workers: int = 0) -> Any:
    return builder.Plan(builder.SIZES[size], torch.device("cpu"), workers, seed=0, test_size=20)


def test_the_models_are_as_large_as_their_sizes_say(builder, tokenizer):
    found = {}
    for name, size in builder.SIZES.items():
        with torch.device("meta"):
            text = builder.language_model(tokenizer, size)
            vision, speech = builder.vision_parts(size)[0], builder.speech_parts(size)[0].get_encoder()
        found[name] = [round(part.num_parameters() / 1e6, 1) for part in (text, vision, speech)]
    assert found == {"small": [0.7, 0.3, 0.1], "large": [25.9, 3.9, 3.4]}


def same(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_batches_of_the_small_size_come_from_one_generator(builder, tokenizer):
    for loose in (False, True):
        rng = np.random.default_rng((0, 1 + 4 * loose))
        expected = [builder.text_batch(tokenizer, rng, 64, loose) for _ in range(2)]
        found = list(builder.text_batches(tokenizer, plan_of(builder, "small"), 2, loose))
        assert len(found) == 2 and all(map(same, found, expected))


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")  # Python 3.12 says so of any thread, also an idle one
def test_batches_of_the_large_size_are_the_same_whoever_makes_them(builder, tokenizer):
    alone = list(builder.text_batches(tokenizer, plan_of(builder, "large"), 6, False))
    ahead = list(builder.text_batches(tokenizer, plan_of(builder, "large", workers=1), 6, False))
    assert len(ahead) == 6 and all(map(same, ahead, alone))
    assert not same(alone[0], alone[1]) and alone[0]["input_ids"].shape[0] == 256


def test_a_pool_in_chunks_is_as_long_as_it_should_be(builder):
    plan, asked = plan_of(builder, "large"), []

    def make(rng: np.random.Generator, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        asked.append(count)
        return torch.from_numpy(rng.random(count)), torch.arange(count)

    pool = builder.pool_of(make, 5, plan)
    assert asked == [500, 500, 280] and len(pool["media"]) == len(pool["media"].unique()) == 1280 == len(pool["digits"])


def test_processes_are_refused_where_one_generator_makes_all(builder, capsys):
    with pytest.raises(SystemExit):
        builder.read_options(["--workers", "2"])
    assert "--workers 2: batches of `small` come from one random generator" in capsys.readouterr().err
    assert builder.read_options(["--size", "large"]).workers > 0 == builder.read_options([]).workers


def test_the_script_says_how_large_and_where(builder, tmp_path):
    builder.main(
        ["--parts", "vision", "--encoder-steps", "1", "--test-size", "5", "--device", "cpu", "--out", str(tmp_path)]
    )
    facts = json.loads((tmp_path / "vision" / "training.json").read_text())
    assert (facts["size"], facts["device"], facts["seed"], facts["steps"]) == ("small", "cpu", 0, 1)
