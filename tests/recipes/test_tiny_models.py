"""The tiny models: of the published classes, the same each time, and read by the same code."""

import itertools
import shutil
from pathlib import Path

import pytest
import torch
import transformers
from peft import get_peft_model
from transformers import AutoTokenizer, LlamaTokenizer, PreTrainedTokenizerFast, Qwen2Tokenizer

from moka_peft import MokaConfig, RoutingSpec, route
from moka_peft.composite import build_composite
from moka_peft.composite.encoders import load_encoder
from moka_peft.composite.published import published_config, published_names
from moka_peft.data import Collator, Sample
from moka_peft.training import load_model
from moka_peft.training.model import decoder_linears
from moka_peft.training.tiny.models import FAMILIES, tiny_model
from moka_peft.training.tiny.parts import TOKENIZERS, tiny_encoder, tiny_text
from moka_peft.training.tiny.sizes import shrink

WHOLE = [
    name for name in published_names() if not name.endswith(".pt") and published_config(name).model_type in FAMILIES
]
ENCODERS = {  # one of each kind
    "openai/clip-vit-large-patch14": "vision",
    "google/siglip-so400m-patch14-384": "vision",
    "weights/BEATs_iter3_plus_AS2M.pt": "audio",
    "MIT/ast-finetuned-audioset-10-10-0.4593": "audio",
    "openai/whisper-large-v3": "audio",
    "facebook/hubert-large-ll60k": "audio",
    "facebook/wav2vec2-large-960h": "audio",
}
CLASSES = {
    "meta-llama/Llama-2": LlamaTokenizer,
    "meta-llama/Meta-Llama-3": PreTrainedTokenizerFast,
    "Qwen": Qwen2Tokenizer,
}
QUESTION, ANSWER = "Which colour? 'Red', blue -\n\nor gr\u00fcn, \u7ea2\u8272?", "Gr\u00fcn, not red."


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("parts")


def of_all_parts(model) -> int:
    return sum(weight.numel() for weight in model.parameters())


@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_language_model_is_of_the_published_class(name: str, folder: Path):
    place = tiny_text(name, folder)
    model = transformers.AutoConfig.from_pretrained(place)
    assert model.architectures == published_config(name).architectures
    tokenizer = AutoTokenizer.from_pretrained(place)
    assert isinstance(tokenizer, next(kind for start, kind in CLASSES.items() if name.startswith(start)))
    assert model.get_text_config().vocab_size == len(tokenizer) < 600
    assert tokenizer.decode(tokenizer(QUESTION, add_special_tokens=False).input_ids) == QUESTION


@pytest.mark.parametrize("name", TOKENIZERS)
def test_turns_and_answers_are_found_in_its_conversations(name: str, folder: Path):
    audio = tiny_encoder("openai/whisper-large-v3", folder, "audio")
    model, processor = build_composite(str(tiny_text(name, folder)), audio=str(audio), dtype="float32")
    parts = [{"type": "audio", "audio": torch.zeros(16_000).numpy(), "sample_rate_hz": 16_000}]
    turns = [[*parts, {"type": "text", "text": f"\n{QUESTION}"}], "And why?"]
    messages = [{"role": "user", "content": turns[0]}, {"role": "assistant", "content": ANSWER}]
    messages += [{"role": "user", "content": turns[1]}, {"role": "assistant", "content": "Because."}]
    batch = Collator(processor)([Sample("one", messages)])
    ids, labels = batch["input_ids"][0], batch["labels"][0]
    learnt = [processor.tokenizer.decode(ids[group]) for group in _runs(labels != -100)]
    assert [text.split("<|eot")[0].split("<|im_end")[0].removesuffix("</s>").strip() for text in learnt] == [
        ANSWER,
        "Because.",
    ]
    turn = route(batch["input_ids"], RoutingSpec.from_pretrained(model, processor)).turn[0]
    is_text = ids != model.config.audio_token_id
    said = [processor.tokenizer.decode(ids[(turn == number) & is_text]).strip() for number in (1, 2)]
    assert said == [QUESTION, turns[1]]


def _runs(mask: torch.Tensor) -> list[list[int]]:
    """The positions of each unbroken run of True."""
    groups = itertools.groupby(range(len(mask)), key=lambda position: bool(mask[position]))
    return [list(positions) for value, positions in groups if value]


@pytest.mark.filterwarnings("ignore:At least one mel filter has all zero values")
@pytest.mark.parametrize("name", ENCODERS)
def test_an_encoder_keeps_its_depth_and_is_the_same_each_time(name: str, folder: Path):
    part = ENCODERS[name]
    encoder = load_encoder(str(tiny_encoder(name, folder, part)))
    again = load_encoder(str(tiny_encoder(name, folder / "again", part)))
    assert all(torch.equal(weight, again.state_dict()[key]) for key, weight in encoder.state_dict().items())
    whole = published_config(name)
    whole = getattr(whole, "vision_config", whole)
    assert encoder.config.num_hidden_layers == whole.num_hidden_layers
    assert of_all_parts(encoder) < 10**6 and type(encoder.config) is type(whole)


@pytest.mark.parametrize("name", WHOLE)
def test_an_aligned_model_is_of_the_published_class(name: str, folder: Path):
    try:
        place = tiny_model(name, folder)
    except ImportError as error:
        assert "torchvision" in str(error).lower() and "Qwen2.5" in name
        pytest.skip("its processor needs torchvision")
    model, processor = load_model(str(place))
    assert type(model).__name__ in published_config(name).architectures
    assert RoutingSpec.from_pretrained(model, processor).placeholders


@pytest.mark.parametrize("name", WHOLE)
def test_both_methods_adapt_the_same_linears_of_an_aligned_model(name: str):
    config = published_config(name)
    ids = FAMILIES[config.model_type].ids
    tokenizer = FAMILIES[config.model_type].tokenize([*ids.values()])
    model = getattr(transformers, config.architectures[0])._from_config(shrink(config, tokenizer, ids))  # pyright: ignore
    lora = decoder_linears(model)
    media = tokenizer.convert_tokens_to_ids(next(iter(ids.values())))
    routing = RoutingSpec({"media": (media,)}, user_open=((1,),), user_close=((2,),))
    adapted = get_peft_model(model, MokaConfig(routing=routing)).get_base_model()
    assert sorted(lora) == sorted(name for name, module in adapted.named_modules() if hasattr(module, "moka_B"))
    assert len(lora) == 2 * 7  # layers, matrices


def test_making_models_leaves_the_callers_random_numbers(folder: Path):
    shutil.rmtree(folder / "meta-llama--Llama-2-7b-chat-hf", ignore_errors=True)
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    tiny_text("meta-llama/Llama-2-7b-chat-hf", folder)
    assert torch.equal(torch.rand(2), expected)
