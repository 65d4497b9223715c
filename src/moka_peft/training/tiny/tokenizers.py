"""Tokenizers of the published kinds with a few hundred tokens, built here: nothing is downloaded.

Each has the class, the special tokens and the shape of chat template of its family, so that answers, turns and
placeholders are found by the same code as with the published one.
"""

import json
from collections.abc import Sequence
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AddedToken, LlamaTokenizer, PreTrainedTokenizerFast, Qwen2Tokenizer

TEXT = """
This is a video: This is an audio: Please answer this question: How many instruments are there? Describe the image.
What is in the picture? You are a helpful assistant. Is the flute louder than the piano? Write down what is said.
Answer with the letter of the right choice. <answer>yes</answer> <event>Dog bark</event> <range>2,5</range>
user system assistant USER: ASSISTANT: one two three four five six seven eight nine ten left right middle
"""
MERGES = 150  # learnt from TEXT, so that a question takes tens of tokens rather than a hundred


def llama2_tokenizer(special: Sequence[str] = ()) -> Any:
    """As LLaMA 2's: pieces that begin with a visible space, and a byte where no piece fits."""
    bytes_ = [f"<0x{number:02X}>" for number in range(256)]
    letters = ["\u2581", *map(chr, range(33, 127))]
    splitter = pre_tokenizers.Metaspace(prepend_scheme="never")
    learnt = _learn(splitter, ["<unk>", "<s>", "</s>", *bytes_], letters)
    return _with_special(LlamaTokenizer(vocab=learnt["vocab"], merges=_pairs(learnt)), ["<s>", "</s>", *special])


def llama3_tokenizer(special: Sequence[str] = ()) -> Any:
    """As LLaMA 3's: byte-level pieces, and a template that begins every text with the first special token."""
    marks = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
    splitter = pre_tokenizers.ByteLevel(add_prefix_space=False)
    learnt = _learn(splitter, marks, sorted(pre_tokenizers.ByteLevel.alphabet()))
    tokenizer = Tokenizer(models.BPE(vocab=learnt["vocab"], merges=_pairs(learnt)))
    tokenizer.pre_tokenizer, tokenizer.decoder = splitter, decoders.ByteLevel()
    start = (marks[0], learnt["vocab"][marks[0]])
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{marks[0]} $A", special_tokens=[start])
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=marks[0], eos_token=marks[-1])
    return _with_special(wrapped, [*marks, *special])


def qwen_tokenizer(special: Sequence[str] = ()) -> Any:
    """As Qwen 2's: byte-level pieces, padded with its end-of-text token."""
    splitter = Qwen2Tokenizer().backend_tokenizer.pre_tokenizer
    learnt = _learn(splitter, ["<|endoftext|>"], sorted(pre_tokenizers.ByteLevel.alphabet()))
    tokenizer = Qwen2Tokenizer(vocab=learnt["vocab"], merges=_pairs(learnt))
    tokenizer = _with_special(tokenizer, ["<|im_start|>", "<|im_end|>", *special])
    tokenizer.eos_token = "<|im_end|>"
    return tokenizer


def _learn(splitter: Any, whole: list[str], letters: list[str]) -> dict[str, Any]:
    """Vocabulary and merges of a byte-pair encoding of `TEXT`."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = splitter
    size = len(whole) + len(letters) + MERGES
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=whole, initial_alphabet=letters, show_progress=False)
    tokenizer.train_from_iterator(TEXT.split("\n"), trainer)
    return json.loads(tokenizer.to_str())["model"]


def _pairs(learnt: dict[str, Any]) -> list[Any]:
    return [tuple(pair) for pair in learnt["merges"]]


def _with_special(tokenizer: Any, special: Sequence[str]) -> Any:
    tokenizer.add_tokens([AddedToken(text, special=True, normalized=False) for text in special], special_tokens=True)
    return tokenizer


TOKENIZERS = {"llama2": llama2_tokenizer, "llama3": llama3_tokenizer, "qwen": qwen_tokenizer}
