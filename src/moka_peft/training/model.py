"""Opening the base model, putting an adapter on it, and opening both again from a run's folder."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
import yaml
from peft import LoraConfig, PeftConfig, PeftModel
from peft.utils.constants import DUMMY_TARGET_MODULES
from torch import nn
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor

from moka_peft.composite import load_tiny_avt, tiny_avt_processor
from moka_peft.routing import RoutingSpec
from moka_peft.training.composite_parts import open_composite
from moka_peft.training.earlier_parts import restore_parts
from moka_peft.training.folder import RECIPE
from moka_peft.training.methods import PEFTS_OWN, build_config
from moka_peft.training.parts import adapt_with_parts, expected_warnings
from moka_peft.training.processes import is_sharded, local_device
from moka_peft.tuner.config import RoutedConfig
from moka_peft.tuner.sharding import forget_absent_layers

FITTING_SHARE = 0.7  # of a GPU's free memory: answers to held-out questions need some, too


def load_model(
    name: str | None = None,
    revision: str | None = None,
    dtype: str = "float32",
    with_processor: bool = True,
    **parts: Any,
) -> tuple[Any, Any]:
    """Opens a base model and its processor: `tiny-avt`, a folder, a hub id, or the `parts` of a composite as
    `open_composite` takes them; on this process's GPU where there is one.

    Raises OSError where there is no such model. The processor is None where `with_processor` is False.
    """
    model: Any
    if name is None:
        model, processor = open_composite(**parts, dtype=dtype)
    elif name == "tiny-avt":
        model, processor = load_tiny_avt(dtype)
    else:
        model = _model_class(name, revision).from_pretrained(name, revision=revision, dtype=dtype)
        processor = load_processor(name, revision) if with_processor else None
    return model.to(_first_device(model)), processor


def _first_device(model: nn.Module) -> str:
    """This process's device; the CPU for a model that is about to be sharded because it does not fit there whole."""
    device = local_device()
    if not (is_sharded() and device.startswith("cuda")):
        return device
    size, free = sum(weight.nbytes for weight in model.parameters()), torch.cuda.mem_get_info(device)[0]
    return device if size < FITTING_SHARE * free else "cpu"


def _model_class(name: str, revision: str | None) -> Any:
    """What opens a model: models that hear and do not see have no auto class of their own, and of those that speak,
    such as Qwen-Omni, only the thinker is trained and opened."""
    config: Any = AutoConfig.from_pretrained(name, revision=revision)
    if (thinker := getattr(config, "thinker_config", None)) is not None:
        return AutoModelForImageTextToText._model_mapping[type(thinker)]
    if type(config) in AutoModelForImageTextToText._model_mapping or not config.architectures:
        return AutoModelForImageTextToText
    return getattr(transformers, config.architectures[0], AutoModelForImageTextToText)


def load_processor(name: str, revision: str | None = None) -> Any:
    """Opens only the processor of a base model; loads no weights."""
    return tiny_avt_processor() if name == "tiny-avt" else AutoProcessor.from_pretrained(name, revision=revision)


def add_adapter(
    model: Any,
    processor: Any,
    method: str,
    *,
    train: Sequence[str] = (),
    routing: RoutingSpec | None = None,
    **settings: Any,
) -> PeftModel:
    """Puts an adapter on a model by a method of `methods.CONFIGS`; the parts in `train` ("projectors", "towers",
    "embeddings") train in full, in copies that PEFT saves with the adapter. With `none` they are all that trains.

    settings: keywords of the methods' configs; each leaves out those that it does not know. routing: read from the
    processor unless given. Raises ValueError where they do not fit the model.
    """
    forget_absent_layers(model)
    if method == "none":  # PEFT's adapter of no module: its copies of parts are saved, resumed and sharded like others
        config: PeftConfig = LoraConfig(
            target_modules=DUMMY_TARGET_MODULES, modules_to_save=settings["modules_to_save"]
        )
    elif method in PEFTS_OWN:
        targets = settings["target_modules"] or decoder_linears(model)
        config = build_config(method, {**settings, "target_modules": targets})
    else:
        config = build_config(method, settings, routing=routing or RoutingSpec.from_pretrained(model, processor))
    return adapt_with_parts(model, config, train)


def decoder_linears(model: Any) -> list[str]:
    """Full names of the Linears in the text decoder's layers: what LoRA adapts when a recipe names no targets.

    PEFT's own default depends on the model type, and on many multimodal models reaches into the towers.
    """
    names = {module: name for name, module in model.named_modules()}
    layers = model.get_decoder().layers
    return [names[module] for module in layers.modules() if isinstance(module, nn.Linear)]


def load_adapted(folder: Path) -> tuple[PeftModel, Any]:
    """Opens what a run left in its folder: the base model with the adapter on it, and the processor.

    Also takes a bare PEFT adapter folder, whose base model is then the one named in its config.
    """
    if not (folder / "adapter_config.json").is_file():
        raise FileNotFoundError(
            f"`adapter` is no adapter folder: {folder} has no adapter_config.json. Give a finished run's folder."
        )
    has_processor = (folder / "processor_config.json").is_file()
    base, processor = load_model(**base_of(folder), with_processor=not has_processor)
    restore_parts(base, folder)
    processor = AutoProcessor.from_pretrained(folder) if has_processor else processor
    with expected_warnings():
        adapted: Any = PeftModel.from_pretrained(base, str(folder)).eval()
    for config in adapted.peft_config.values():
        if isinstance(config, RoutedConfig) and config.routing is None:  # a composite from parts has no folder to ask
            config.routing = RoutingSpec.from_pretrained(base, processor)
    return adapted, processor


def base_of(folder: Path) -> dict[str, Any]:
    """Which model the adapter in a folder belongs to, as keywords of `load_model`.

    A recipe knows `tiny-avt` wherever the package is installed. Without one the base opens in the dtype of its weights.
    """
    if (folder / RECIPE).is_file():
        model = yaml.safe_load((folder / RECIPE).read_text(encoding="utf-8"))["model"]
        if model.get("chat_template"):
            model["chat_template"] = str(folder / "chat_template.jinja")  # as the processor saved it
        return {key: value for key, value in model.items() if key != "start_from"}  # the folder has those parts
    config = PeftConfig.from_pretrained(str(folder))
    if not config.base_model_name_or_path:
        raise ValueError(f"`adapter` names no base model: {folder}/adapter_config.json. Add base_model_name_or_path.")
    return {"name": config.base_model_name_or_path, "revision": config.revision, "dtype": "auto"}
