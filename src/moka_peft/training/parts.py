"""The parts of a multimodal model that can train beside an adapter: projectors, towers, embeddings."""

import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from peft import PeftConfig, PeftModel, get_peft_model
from peft.utils import ModulesToSaveWrapper
from torch import nn
from transformers import PreTrainedModel

from moka_peft.training.full_precision import train_in_float32
from moka_peft.tuner.targets import INNER_MODELS

PARTS = ("projectors", "towers", "embeddings")
PROJECTOR_WORDS = ("projector", "connector")  # a whole projector, also where a model of its own is inside it
PROJECTORS_IN_TOWERS = ("merger", "merger_list", "deepstack_merger_list", "downsample", "proj", "proj1", "proj2")


def find_parts(model: Any) -> dict[str, list[str]]:
    """Full names of the modules of each part; none of them is inside another one of the same part.

    A tower is a model of its own outside the text decoder; a projector is what else has weights there, and the last
    modules of the towers that bring their features to the decoder's width themselves (Qwen-VL, GLM-V, Qwen-Omni).
    """
    towers, projectors = [], []
    for name, module in _media_modules(model):
        if _is_tower(name, module):
            towers.append(name)
            projectors += [f"{name}.{inner}" for inner in _last_modules(module)]
        else:
            projectors.append(name)
    return {"projectors": projectors, "towers": towers, "embeddings": _embeddings(model)}


def choose_parts(model: Any, train: Sequence[str]) -> list[str]:
    """Full names of the modules of the parts in `train`, for PEFT's `modules_to_save`.

    A projector inside a tower that trains goes with it. Raises ValueError for a part that the model lacks.
    """
    parts = find_parts(model)
    for part in train:
        if not parts[part]:
            raise ValueError(
                f"`train.{part}` finds none in {type(model).__name__}: expected modules outside the text decoder. "
                "Leave it out, or name the modules in `adapter.modules_to_save`."
            )
    chosen = [name for part in PARTS if part in train for name in parts[part]]
    return [name for name in chosen if not any(name.startswith(f"{other}.") for other in chosen)]


def weights_of(model: Any, modules: Sequence[str]) -> list[str]:
    """Full names of the weights inside these modules."""
    return [name for name, _ in model.named_parameters() if any(name.startswith(f"{module}.") for module in modules)]


def part_of(parameter: str, parts: dict[str, list[str]]) -> str:
    """The part that a parameter of an adapted model belongs to, "adapter" for none; parts: as `find_parts` gives them.

    A projector inside a tower is a projector.
    """
    path = re.sub(r"\.modules_to_save\.[^.]+|\.original_module", "", f".{parameter}.")
    for part in PARTS:
        if any(f".{name}." in path for name in parts[part]):
            return part
    return "adapter"


def adapt_with_parts(model: Any, config: PeftConfig, train: Sequence[str]) -> PeftModel:
    """Puts an adapter on a model; the parts in `train` train in copies, which PEFT saves and loads with the adapter.

    Raises ValueError for a part that the model lacks.
    """
    parts, chosen = find_parts(model), choose_parts(model, train)
    config.modules_to_save = sorted({*(config.modules_to_save or ()), *chosen}) or None  # pyright: ignore
    with expected_warnings():
        adapted: Any = get_peft_model(model, config)
    if "towers" in train and "projectors" not in train:  # a tower is saved as a whole
        for name, parameter in adapted.named_parameters():
            if part_of(name, parts) == "projectors":
                parameter.requires_grad_(False)
    if "embeddings" in train:
        _tie_embeddings(adapted, model)
    train_in_float32(adapted)
    for name in parts["towers"]:
        model.get_submodule(name).register_forward_pre_hook(_keep_still)
    return adapted


@contextmanager
def expected_warnings() -> Iterator[None]:
    """Silences what PEFT says here: a property that transformers 5.23 renamed, and tied embeddings, which stay tied."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
        warnings.filterwarnings("ignore", ".*tie_word_embeddings", UserWarning)
        yield


def _keep_still(tower: nn.Module, args: Any) -> None:
    """Takes a tower with nothing to train out of training mode: its dropout, and the statistics of batch norms, which
    are not saved with an adapter (Granite Speech has some)."""
    if tower.training and not any(parameter.requires_grad for parameter in tower.parameters()):
        tower.eval()


def _tie_embeddings(adapted: Any, model: Any) -> None:
    """Gives the trained copies of tied embeddings one weight, as the model's own have."""
    into, out = model.get_input_embeddings(), model.get_output_embeddings()
    if isinstance(out, ModulesToSaveWrapper) and out.original_module.weight is into.original_module.weight:
        out.modules_to_save[adapted.active_adapter].weight = into.modules_to_save[adapted.active_adapter].weight


def _media_modules(model: Any) -> Iterator[tuple[str, nn.Module]]:
    """The topmost towers and projectors, with their full names."""
    inner = next((name for name in INNER_MODELS if getattr(model, name, None) is not None), "")
    holder = getattr(model, inner) if inner else model
    decoder = holder.get_decoder()
    heads = [_plain(holder.get_input_embeddings()), _plain(holder.get_output_embeddings())]
    yield from _walk(holder, f"{inner}." if inner else "", decoder, heads)


def _walk(module: nn.Module, prefix: str, decoder: nn.Module, heads: list[Any]) -> Iterator[tuple[str, nn.Module]]:
    for child_name, child in module.named_children():
        name, child = prefix + child_name, _plain(child)
        if next(child.parameters(), None) is None or any(child is head for head in heads):
            continue
        if module is decoder and not _holds_tower(child):
            continue  # the decoder's own layers; Phi-4's media encoders are inside its decoder
        if child is decoder or any(other is decoder for other in child.modules()):
            yield from _walk(child, f"{name}.", decoder, heads)
        elif _is_tower(name, child) or _is_projector_by_name(name) or not _holds_tower(child):
            yield name, child
        else:
            yield from _walk(child, f"{name}.", decoder, heads)


def _plain(module: Any) -> Any:
    """The model's own module where PEFT trains a copy of it."""
    return module.original_module if isinstance(module, ModulesToSaveWrapper) else module


def _is_tower(name: str, module: nn.Module) -> bool:
    return isinstance(module, PreTrainedModel) and not _is_projector_by_name(name)


def _is_projector_by_name(name: str) -> bool:
    return any(word in name.rpartition(".")[2] for word in PROJECTOR_WORDS)


def _holds_tower(module: nn.Module) -> bool:
    return any(isinstance(inner, PreTrainedModel) for inner in module.modules())


def _last_modules(tower: nn.Module) -> Iterator[str]:
    """A tower's own projector; a list of modules by its members, as PEFT saves no lists."""
    for name, child in tower.named_children():
        if name in PROJECTORS_IN_TOWERS and isinstance(child, nn.ModuleList):
            yield from (f"{name}.{index}" for index in range(len(child)))
        elif name in PROJECTORS_IN_TOWERS:
            yield name


def _embeddings(model: Any) -> list[str]:
    """The token embeddings, and the output head."""
    inner = next((child for name in INNER_MODELS if (child := getattr(model, name, None)) is not None), model)
    heads = [inner.get_input_embeddings(), inner.get_output_embeddings()]
    names = {id(module): name for name, module in model.named_modules()}
    return [names[id(head)] for head in heads if head is not None and id(head) in names]
