"""The audio-visual-text model that ships with the package, adapted, and a few questions for it."""

from __future__ import annotations

from moka_peft.data.av_digits import AvDigits
from moka_peft.training.model import add_adapter, load_model

from .adapters import randomise


def answering(method, size, **settings):
    """model, processor, samples; the adapter is random and far from zero."""
    base, processor = load_model("tiny-avt")
    model = add_adapter(base, processor, method, r=2, lora_alpha=4, target_modules=None, **settings)
    randomise(model)
    questions = AvDigits("test", size)
    return model.eval(), processor, [questions.sample(index) for index in range(size)]
