"""Tiny models and chats shared by the tests: random weights, a made-up vocabulary, nothing downloaded."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from moka_peft import RoutingSpec

if "PYTEST_XDIST_WORKER" in os.environ:
    torch.set_num_threads(1)  # the workers share the cores


def pytest_addoption(parser):
    parser.addoption("--models-table", metavar="FILE", help="write what the matrix of families found into FILE")


def pytest_terminal_summary(terminalreporter, config):
    if config.getoption("--models-table"):
        from .families.table import write_tables

        reports = terminalreporter.stats.get("passed", [])
        cells = [value for report in reports for name, value in report.user_properties if name == "cell"]
        terminalreporter.write_line(write_tables(Path(config.getoption("--models-table")), cells))


@pytest.fixture(scope="session", autouse=True)
def _imports_are_no_garbage() -> Iterator[None]:
    """Collections pass by what is imported: Trainers and time_rounds ask for one each, 0.4 s over 700,000 objects."""
    gc.collect()
    gc.freeze()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gc, "unfreeze", lambda: None)  # which time_rounds calls
        yield
    gc.unfreeze()  # for what goes as the interpreter ends


BOS, USER, SEP, END, EOS, IMAGE, AUDIO = 1, 2, 3, 4, 5, 50, 60
PLACEHOLDERS = {"v": IMAGE, "a": AUDIO}


@pytest.fixture
def spec() -> RoutingSpec:
    """Turns look like USER SEP ... END; images are token 50, audio 60."""
    return RoutingSpec(
        placeholders={"visual": (IMAGE,), "audio": (AUDIO,)}, user_open=((USER, SEP),), user_close=((END,),)
    )


@pytest.fixture
def chat() -> Callable[..., torch.Tensor]:
    """chat("vvq", "rr") -> ids [1, S]: one user turn of two images and a question token, then two answer tokens.

    v image, a audio, any other letter a text token of its own; arguments alternate user and assistant.
    """

    def build(*turns: str) -> torch.Tensor:
        ids = [BOS]
        for index, turn in enumerate(turns):
            body = [PLACEHOLDERS.get(letter, 6 + ord(letter) % 40) for letter in turn]
            ids += [USER, SEP, *body, END] if index % 2 == 0 else [*body, EOS]
        return torch.tensor([ids])

    return build


@pytest.fixture
def tiny_lm() -> Callable[..., LlamaForCausalLM]:
    """tiny_lm(seed) -> a two-layer LLaMA of 32 dimensions."""

    def build(seed: int = 0, **overrides: int) -> LlamaForCausalLM:
        torch.manual_seed(seed)
        values = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, vocab_size=100)
        return LlamaForCausalLM(LlamaConfig(**{**values, "pad_token_id": 0, **overrides})).eval()

    return build


@pytest.fixture(scope="module")
def without_plots() -> Iterator[None]:
    """Runs draw nothing, which takes 0.25 s each; what they draw is for tests/training/test_run.py and test_plot.py."""
    with pytest.MonkeyPatch.context() as patch:
        for plot in ("draw_loss", "draw_scores", "draw_learning_rate"):
            patch.setattr(f"moka_peft.training.run.{plot}", lambda *_: None)
        yield


@pytest.fixture(scope="session")
def golden() -> Path:
    """Vectors recorded from the authors' layers, where they lie beside the checkout; else the test is skipped."""
    folder = Path(__file__).parents[2] / "shared" / "golden"
    if not folder.is_dir():
        pytest.skip("the recorded vectors are not beside this checkout")
    return folder
