"""An adapter trained for two steps on an untrained model, and media files to ask it about."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from moka_peft.cli import call
from moka_peft.composite import CompositeForConditionalGeneration, tiny_avt_config, tiny_avt_processor

RECIPE = """\
model: {{name: {model}}}
data:
  train: {{name: av_digits, size: 4}}
  eval: {{name: av_digits, split: test, size: 2}}
adapter: {{r: 2}}
training: {{steps: 2, batch_size: 2, num_threads: 1}}
evaluation: {{max_new_tokens: 2}}
output_dir: {out}
"""


@pytest.fixture(scope="session")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe for an untrained audio-visual-text model."""
    folder = tmp_path_factory.mktemp("cli")
    torch.manual_seed(0)
    CompositeForConditionalGeneration(tiny_avt_config()).save_pretrained(folder / "model")
    tiny_avt_processor().save_pretrained(folder / "model")
    (folder / "recipe.yaml").write_text(RECIPE.format(model=folder / "model", out=folder / "out"))
    return folder / "recipe.yaml"


@pytest.fixture(scope="session")
def adapter(recipe: Path) -> Path:
    """What `moka train` leaves for `recipe`."""
    assert call(["train", str(recipe)]) == 0
    return recipe.parent / "out"


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "strip.png"
    Image.fromarray(np.arange(32 * 128, dtype=np.uint8).reshape(32, 128)).save(path)
    return path


@pytest.fixture
def audio(tmp_path: Path) -> Path:
    path = tmp_path / "notes.wav"
    soundfile.write(path, np.sin(np.arange(16_000) / 8).astype(np.float32), 16_000)
    return path
