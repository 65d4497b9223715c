"""Tiny tokenizers, and chat templates in the styles that models use."""

import json
from types import SimpleNamespace

import pytest
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AddedToken, PreTrainedTokenizerFast, Qwen2Tokenizer

WORDS = "USER: What is in the picture? ASSISTANT: a cat. system user assistant model which color now INST SYS".split()

# Words and runs of signs that `train_like`'s tokenizers learn to merge, with white space in every place.
CORPUS = ["User: user\nUSER: system Assistant: model [INST] x [/INST] <tool_response>\n</tool_response>\n\n<<SYS>> 'a'"]
CORPUS += [
    'Who? me!\n\nwhy: {x} [y](z)\n...\n\n\n- one\n  two\t<tool_result>\n,\' "q"\n{\n    \n}\n\n',
    "what.\nis]\n>\n\n?\n",
]

CHATML = """
{%- set media = namespace(count=0) %}
{%- for message in messages %}
  {%- if loop.first and message.role != 'system' %}
    {{- '<|im_start|>system\\nYou are kind.<|im_end|>\\n' }}
  {%- endif %}
  {{- '<|im_start|>' + message.role + '\\n' }}
  {%- for part in message.content %}
    {%- if part.type == 'text' %}
      {{- part.text }}
    {%- else %}
      {%- set media.count = media.count + 1 %}
      {%- if add_vision_id %}
        {{- 'Picture ' ~ media.count ~ ': ' }}
      {%- endif %}
      {{- '<|vision_start|><|' + part.type + '_pad|><|vision_end|>' }}
    {%- endif %}
  {%- endfor %}
  {{- '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
  {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""
INST = """
{%- set block = namespace(text='') %}
{%- for message in messages %}
  {%- if message.role == 'system' %}
    {%- set block.text = '<<SYS>>\\n' + message.content + '\\n<</SYS>>\\n\\n' %}
  {%- elif message.role == 'user' %}
    {{- bos_token + '[INST] ' + block.text + message.content + ' [/INST]' }}
    {%- set block.text = '' %}
  {%- else %}
    {{- ' ' + message.content + ' ' + eos_token }}
  {%- endif %}
{%- endfor %}
"""
USER_COLON = """
{%- for message in messages %}
  {%- if message.role == 'system' %}
    {{- message.content[0].text + ' ' }}
  {%- else %}
    {{- message.role | upper + ': ' }}
    {%- for part in message.content if part.type == 'image' %}
      {{- '<image>\\n' }}
    {%- endfor %}
    {%- for part in message.content if part.type == 'text' %}
      {{- part.text }}
    {%- endfor %}
    {{- eos_token if message.role == 'assistant' else ' ' }}
  {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
  {{- 'ASSISTANT:' }}
{%- endif %}
"""
HEADERS = """
{{- bos_token }}
{%- for message in messages %}
  {{- '<|start_header|>' + message.role + '<|end_header|>\\n\\n' }}
  {%- for part in message.content %}
    {{- part.text | trim if part.type == 'text' else '<|' + part.type + '|>' }}
  {%- endfor %}
  {{- '<|eot|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
  {{- '<|start_header|>assistant<|end_header|>\\n\\n' }}
{%- endif %}
"""
TURNS = """
{{- bos_token }}
{%- set first = namespace(text='') %}
{%- for message in messages %}
  {%- if message.role == 'system' %}
    {%- set first.text = message.content[0].text + '\\n\\n' %}
  {%- else %}
    {{- '<start_of_turn>' + ('model' if message.role == 'assistant' else 'user') + '\\n' + first.text }}
    {%- set first.text = '' %}
    {%- for part in message.content %}
      {{- part.text | trim if part.type == 'text' else '\\n\\n<' + part.type + '>\\n\\n' }}
    {%- endfor %}
    {{- '<end_of_turn>\\n' }}
  {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
  {{- '<start_of_turn>model\\n' }}
{%- endif %}
"""


def byte_level(*special, bos=None, eos=None):
    """A byte-level BPE tokenizer, as GPT-2's, LLaMA 3's and Qwen's are."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return _trained(tokenizer, pre_tokenizers.ByteLevel.alphabet(), special, bos, eos)


def metaspace(*special, bos=None, eos=None):
    """A BPE tokenizer with a visible space in front of words, as LLaMA 2's and Gemma's are."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="first")
    return _trained(tokenizer, [chr(code) for code in range(10, 127)], ("<unk>", *special), bos, eos)


def _trained(tokenizer, alphabet, special, bos, eos):
    special = [text for text in (bos, eos, *special) if text]
    trainer = trainers.BpeTrainer(
        vocab_size=len(special) + len(alphabet) + 60,
        special_tokens=special,
        initial_alphabet=alphabet,
        show_progress=False,
    )
    tokenizer.train_from_iterator([" ".join(WORDS)] * 4, trainer)
    if bos:
        start = [(bos, tokenizer.token_to_id(bos))]
        tokenizer.post_processor = processors.TemplateProcessing(single=f"{bos} $A", special_tokens=start)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=bos, eos_token=eos)


def train_like(kind, special="", added="", *, bos=None, eos=None, strips=False, words=()):
    """A tokenizer of a model's own class, trained on CORPUS as the model's was: merges stay within words.

    `special` tokens and `added` ones, which are not special, are kept whole; `strips`: special tokens swallow the
    white space after them; `words`: learnt above all others.
    """
    if kind is Qwen2Tokenizer:
        whole = [eos]
        alphabet, splitter = pre_tokenizers.ByteLevel.alphabet(), Qwen2Tokenizer().backend_tokenizer.pre_tokenizer
    else:
        whole = ["<unk>", "<s>", "</s>", "<bos>", "<eos>", "<pad>", "<mask>", *(f"<0x{n:02X}>" for n in range(256))]
        alphabet = ["▁", *map(chr, range(33, 127))]
        pieces = pre_tokenizers.Split(Regex(r"▁?\p{L}+|▁?[^\p{L}\s▁]+|\n+|▁+"), "isolated")
        splitter = pre_tokenizers.Sequence([pre_tokenizers.Metaspace(prepend_scheme="never", split=False), pieces])
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = splitter
    size = len(whole) + len(alphabet) + 200
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=whole, initial_alphabet=alphabet, show_progress=False)
    trained.train_from_iterator([*CORPUS * 4, *(word.replace("▁", " ") for word in words * 50)], trainer)
    model = json.loads(trained.to_str())["model"]
    tokenizer = kind(vocab=model["vocab"], merges=[tuple(p) for p in model["merges"]], bos_token=bos, eos_token=eos)
    tokens = [AddedToken(text, special=True, normalized=False, rstrip=strips) for text in special.split()]
    tokens += [AddedToken(text, special=True, normalized=False) for text in (bos, eos) if text]
    tokenizer.add_tokens([*tokens, *(AddedToken(text, special=False, normalized=False) for text in added.split())])
    return tokenizer


def chat(tokenizer, template, **media):
    """A (config, processor) pair; `media`: config attribute -> token text."""
    tokenizer.chat_template = template
    ids = {name: tokenizer.convert_tokens_to_ids(text) for name, text in media.items()}
    return SimpleNamespace(bos_token_id=0, **ids), tokenizer


STYLES = {
    "chatml": lambda: chat(
        byte_level(
            *("<|im_start|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"), eos="<|im_end|>"
        ),
        CHATML,
        image_token_id="<|image_pad|>",
        video_token_id="<|video_pad|>",
        vision_start_token_id="<|vision_start|>",
        vision_end_token_id="<|vision_end|>",
    ),
    "inst": lambda: chat(metaspace("<image>", bos="<s>", eos="</s>"), INST, image_token_id="<image>"),
    "user_colon": lambda: chat(metaspace("<image>", bos="<s>", eos="</s>"), USER_COLON, image_token_index="<image>"),
    "user_colon_bytes": lambda: chat(
        byte_level("<image>", bos="<s>", eos="</s>"), USER_COLON, image_token_id="<image>"
    ),
    "headers": lambda: chat(
        byte_level(
            *("<|start_header|>", "<|end_header|>", "<|eot|>", "<|image|>", "<|audio|>", "<|point|>"), bos="<|begin|>"
        ),
        HEADERS,
        image_token_id="<|image|>",
        audio_token_id="<|audio|>",
    ),
    "turns": lambda: chat(
        metaspace("<start_of_turn>", "<end_of_turn>", "<image>", "<audio>", bos="<bos>", eos="<eos>"),
        TURNS,
        image_token_id="<image>",
        audio_token_id="<audio>",
    ),
}


@pytest.fixture(params=STYLES)
def style(request):
    """(name, config, processor) of one style of chat template."""
    return request.param, *STYLES[request.param]()


@pytest.fixture
def styled():
    """Builds (config, processor) of a named style."""
    return lambda name: STYLES[name]()


@pytest.fixture
def turns_tokenizer():
    """Builds a tokenizer with the `turns` template and more special tokens."""
    return lambda *special: chat(
        metaspace("<start_of_turn>", "<end_of_turn>", *special, bos="<bos>", eos="<eos>"), TURNS
    )[1]


@pytest.fixture
def tokenizer_like():
    """Trains a tokenizer of a model's own class."""
    return train_like


@pytest.fixture
def chat_templates():
    """The chat templates above, by style."""
    return {"chatml": CHATML, "inst": INST, "user_colon": USER_COLON, "headers": HEADERS, "turns": TURNS}
