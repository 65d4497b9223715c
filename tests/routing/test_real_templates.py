"""Chat templates of real models: every one that TRL ships, read at run time, with a tokenizer of its model's kind.

Every token of independent conversations is held against what the user said, known by its characters. Over 400 lines
for the tables: what each model's tokenizer keeps whole, and spans written by hand.
"""

import json
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from transformers import GemmaTokenizer, LlamaTokenizer, Qwen2Tokenizer

from moka_peft.routing import RoutingSpec, route

TEMPLATES = {
    file.stem: file.read_text(encoding="utf-8")
    for file in sorted((Path(find_spec("trl").origin).parent / "chat_templates").glob("*.jinja"))
}


@dataclass(frozen=True)
class Family:
    """A tokenizer of the kind that the models of a template have, and their media.

    `special`: special tokens; `added`: tokens kept whole that are not special; `expand`: what the processor writes
    for a medium, where that is more than the placeholder repeated; `strips`: special tokens swallow white space.
    """

    kind: type
    special: str = ""
    added: str = ""
    bos: str | None = None
    eos: str | None = None
    media: dict[str, str] = field(
        default_factory=lambda: {f"{kind}_token_id": f"<{kind}>" for kind in ("image", "video", "audio")}
    )
    expand: dict[str, str] = field(default_factory=dict)
    strips: bool = False


TILE = "<fake_token_around_image>{}<image><image><image>"
TILES = TILE.format("<row_1_col_1>") + TILE.format("<row_1_col_2>") + "\n\n" + TILE.format("<global-img>")
IDEFICS = {
    "kind": Qwen2Tokenizer,
    "special": "<|im_start|> <fake_token_around_image> <global-img> <row_1_col_1> <row_1_col_2>",
    "bos": "<|begin_of_text|>",
    "eos": "<end_of_utterance>",
    "media": {"image_token_id": "<image>"},
    "expand": {"<image>": TILES + "<fake_token_around_image>"},
}
GEMMA4 = {
    "kind": GemmaTokenizer,
    "special": "<|turn> <turn|> <|tool> <tool|> <|tool_call> <tool_call|> <|tool_response> <tool_response|> "
    '<|channel> <channel|> <|image> <image|> <|audio> <audio|> <|"|> <|think|>',
    "bos": "<bos>",
    "eos": "<eos>",
    "media": {f"{kind}_token_id": f"<|{kind}|>" for kind in ("image", "video", "audio")},
    "expand": {"<|image|>": "<|image>" + "<|image|>" * 3 + "<image|>"},
}
QWEN = {
    "kind": Qwen2Tokenizer,
    "special": "<|im_start|> <|im_end|> <|vision_start|> <|vision_end|>",
    "added": "<tool_call> </tool_call> <tool_response> </tool_response> <think> </think>",
    "eos": "<|endoftext|>",
}
LFM2 = {
    "kind": Qwen2Tokenizer,
    "special": "<|im_start|> <|tool_list_start|> <|tool_list_end|> <|tool_call_start|> <|tool_call_end|> "
    "<|tool_response_start|> <|tool_response_end|> <|image_start|> <|image_end|>",
    "added": "<think> </think>",
    "bos": "<|startoftext|>",
    "eos": "<|im_end|>",
}
VISION = {"image_token_id": "<|image_pad|>", "video_token_id": "<|video_pad|>"}
TOOL_MARKS = ("calls▁begin", "calls▁end", "call▁begin", "call▁end", "sep")
TOOL_MARKS += ("outputs▁begin", "outputs▁end", "output▁begin", "output▁end")
FAMILIES = {  # a template belongs to the longest name that its own begins with
    "cohere": Family(
        Qwen2Tokenizer,
        "<|START_OF_TURN_TOKEN|> <|USER_TOKEN|> <|CHATBOT_TOKEN|> <|SYSTEM_TOKEN|> <|START_RESPONSE|> <|END_RESPONSE|>",
        bos="<BOS_TOKEN>",
        eos="<|END_OF_TURN_TOKEN|>",
    ),
    "deepseek": Family(
        Qwen2Tokenizer,
        added=" ".join(["<｜User｜> <｜Assistant｜> <think> </think>", *(f"<｜tool▁{mark}｜>" for mark in TOOL_MARKS)]),
        bos="<｜begin▁of▁sentence｜>",
        eos="<｜end▁of▁sentence｜>",
    ),
    "diffusion_gemma": Family(**GEMMA4),
    "gemma": Family(GemmaTokenizer, "<start_of_turn> <end_of_turn>", bos="<bos>", eos="<eos>"),
    "gemma3": Family(
        GemmaTokenizer,
        "<start_of_turn> <end_of_turn> <start_of_image> <end_of_image>",
        bos="<bos>",
        eos="<eos>",
        media={"image_token_index": "<image_soft_token>"},
        expand={"<start_of_image>": "\n\n<start_of_image>" + "<image_soft_token>" * 3 + "<end_of_image>\n\n"},
    ),
    "gemma4": Family(**GEMMA4),
    "glm4moe": Family(
        Qwen2Tokenizer,
        "[gMASK] <sop> <|system|> <|user|> <|assistant|> <|observation|>",
        "<think> </think> <tool_call> </tool_call> <tool_response> </tool_response> <arg_key> </arg_key>",
        eos="<|endoftext|>",
    ),
    "gptoss": Family(
        Qwen2Tokenizer,
        "<|start|> <|message|> <|channel|> <|end|> <|call|> <|constrain|>",
        bos="<|startoftext|>",
        eos="<|return|>",
    ),
    "idefics3": Family(**IDEFICS),
    "lfm2": Family(**LFM2),
    "lfm2_2_5_vl": Family(
        **LFM2,
        media={"image_token_id": "<image>"},
        expand={"<image>": "<|image_start|>" + "<image>" * 3 + "<|image_end|>"},
    ),
    "llama3": Family(
        Qwen2Tokenizer,
        "<|start_header_id|> <|end_header_id|> <|eom_id|> <|python_tag|>",
        bos="<|begin_of_text|>",
        eos="<|eot_id|>",
    ),
    "llava_next": Family(LlamaTokenizer, bos="<s>", eos="</s>", media={"image_token_index": "<image>"}),
    "muse_glimmer": Family(
        Qwen2Tokenizer,
        "<|start|> <|message|> <|eom|>",
        bos="<|begin_of_text|>",
        eos="<|eot|>",
        media={"image_token_id": "<|patch|>", "video_token_id": "<|video|>"},
    ),
    "nemotron": Family(Qwen2Tokenizer, "<|im_start|>", "<think> </think>", eos="<|im_end|>"),
    "phi3": Family(
        LlamaTokenizer, "<|system|> <|user|> <|assistant|> <|end|>", bos="<s>", eos="<|endoftext|>", strips=True
    ),
    "qwen2_5": Family(**{**QWEN, "added": "<tool_call> </tool_call>"}),
    "qwen2_5_vl": Family(**QWEN, media=VISION),
    "qwen3": Family(**QWEN),
    "qwen3_vl": Family(**QWEN, media=VISION),
    "qwen3_5": Family(**QWEN, media=VISION),
    "qwen3_6": Family(**QWEN, media=VISION),
    "qwen3_8": Family(**QWEN, media=VISION),
    "smolvlm": Family(**IDEFICS),
}
SYSTEM_IN_USER_TURN = ("gemma3", "gemma3_training")  # with nothing that marks where it ends
NO_TOOLS = ("cohere", "cohere2", "gemma", "gemma3", "idefics3", "llava_next", "phi3", "phi3_5", "smolvlm")
VARIANTS = ("diffusion_gemma", "llama3_2", "nemotron_3_5_lightning", "nemotron_3_super", "nemotron_3_ultra", "phi3_5")
VARIANTS += ("qwen3_5_nothink", "qwen3_6", "qwen3_8", "qwen3_instruct_2507", "lfm2_2_5")
QUOTED_RESULTS = ("gptoss", "llama3_1", "llama3_2")  # results of tools as JSON strings


def family_of(template):
    return FAMILIES[max((name for name in FAMILIES if template.startswith(name)), key=len)]


class Expanding:
    """A processor that writes more for an image than its placeholder repeated."""

    def __init__(self, tokenizer, expand):
        self.tokenizer, self.expand, self.image_processor = tokenizer, expand, object()
        self.image_token, self.chat_template = next(iter(expand)), tokenizer.chat_template
        self.apply_chat_template = tokenizer.apply_chat_template

    def __call__(self, text, images, add_special_tokens=True):
        return self.tokenizer([expanded(one, self.expand) for one in text], add_special_tokens=add_special_tokens)


def expanded(text, expand):
    for written, instead in expand.items():
        text = text.replace(written, instead)
    return text


@pytest.fixture
def model_of(tokenizer_like):
    """Template's name -> (config, processor) of its model."""

    def build(template):
        family = family_of(template)
        whole = f"{family.special} {' '.join(family.media.values())}"
        tokenizer = tokenizer_like(
            family.kind, whole, family.added, bos=family.bos, eos=family.eos, strips=family.strips
        )
        tokenizer.chat_template, tokenizer.name_or_path = TEMPLATES[template], template
        ids = {name: tokenizer.convert_tokens_to_ids(text) for name, text in family.media.items()}
        return SimpleNamespace(**ids), Expanding(tokenizer, family.expand) if family.expand else tokenizer

    return build


# A message is (role, parts); a part is a text that occurs once or "@image", "@video", "@audio".
STORY = [
    ("user", ["How many bridges cross it?"]),
    ("assistant", ["Three, I think."]),
    ("user", ["Name the oldest"]),
    ("assistant", ["Iron Gate."]),
]
TEXTS = (
    ("\n\ndef f(x): return x[0]\n", "3.5 kg of 'flour'"),
    ("画像には何がありますか?", "¿Qué? \n\nOtra línea:"),
    ("- one\n- two\n\n", "[link](http://a.b/c)"),
    (" indented", "ends with blanks  "),
    ("(why)", "a <b> tag></b>"),
    ("#!", "...?!"),
)
SYSTEM = ("system", ["Answer like a sailor."])
CALL = ("call", ["Harbor-17"])
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "find_tide",
            "description": "Looks up a tide.",
            "parameters": {"type": "object", "properties": {"port": {"type": "string", "description": "The port."}}},
        },
    }
]


def conversations(kinds):
    """(name, messages, options of the template) of everything that is held against the spec."""
    yield "text", STORY, {}
    yield "generation prompt", STORY[:3], {"add_generation_prompt": True}
    yield "open", STORY[:3], {}
    yield "system", [SYSTEM, *STORY], {}
    for number, (first, second) in enumerate(TEXTS):
        yield f"texts {number}", [("user", [first]), STORY[1], ("user", [second]), STORY[3]], {}
    thought = ("assistant", ["<think>\nSlate or chalk.\n</think>\n\nChalk."])
    yield "reasoning", [STORY[0], thought, STORY[2], ("assistant", ["<think>\nRust.\n</think>\n\nIron."])], {}
    for thinking in (True, False):
        yield f"thinking {thinking}", STORY[:3], {"add_generation_prompt": True, "enable_thinking": thinking}
    for kind in kinds:
        yield f"{kind} first", [("user", [kind, "What is that?"]), STORY[1], ("user", [kind, "And this"])], {}
        yield f"{kind} last", [("user", ["What is that?", kind]), STORY[1], ("user", ["And this:", kind])], {}
        yield f"{kind} between", [("user", ["Elms", kind, "older than", kind, "?!"]), STORY[1], STORY[2]], {}
        yield f"several {kind}s", [SYSTEM, ("user", [kind] * 3 + ["Which is odd?"]), STORY[1], ("user", [kind])], {}
        yield f"{kind} alone", [("user", [kind]), STORY[1], ("user", [kind, "So?"])], {"add_generation_prompt": True}
        captioned = [("user", ["Compare", *[kind] * 11, "and tell."]), STORY[1], ("user", [kind, "So?"])]
        yield f"captioned {kind}s", captioned, {"add_vision_id": True}
    for one, other in zip(kinds, kinds[1:] + kinds[:1], strict=True):
        if one != other:
            yield f"{one} {other}", [("user", [one, other, "Which?"]), STORY[1], ("user", ["And", other, one])], {}
    asked = ("user", ["When is high water?"])
    results = ("9:30.", '{"tide": "ebb"}', "\nneap\n")
    for number, result in enumerate(results):
        turn = [asked, CALL, ("tool", [result]), ("assistant", ["At dawn."])]
        yield f"tool {number}", [*turn, STORY[2]], {"tools": TOOLS, "add_generation_prompt": True}
        yield f"tool twice {number}", [*turn[:3], ("tool", ["spring tide"]), turn[3], STORY[2], STORY[3]], {}
        yield f"tool system {number}", [SYSTEM, *turn[:3]], {"add_generation_prompt": True}
    for kind in kinds:
        turn = [("user", [kind, "When is high water?"]), CALL, ("tool", ["9:30."]), ("assistant", ["At dawn."])]
        yield f"tool {kind}", [*turn, ("user", ["This", kind]), STORY[3]], {}


def openai(messages, family, *, inline, arguments):
    """The messages as `apply_chat_template` takes them."""
    written = {f"@{name.split('_')[0]}": text for name, text in family.media.items()}
    if family.expand:
        written["@image"] = next(iter(family.expand))
    for role, parts in messages:
        if role == "call":
            call = {"name": "find_tide", "arguments": arguments({"port": parts[0]})}
            tool_calls = [{"id": "call12345", "type": "function", "function": call}]
            yield {"role": "assistant", "content": "", "tool_calls": tool_calls}
        elif inline or role == "tool":
            content = "".join(written.get(part, part) for part in parts)
            named = {"name": "find_tide", "tool_call_id": "call12345"} if role == "tool" else {}
            yield {"role": role, "content": content, **named}
        else:
            parts = [{"type": part[1:]} if part in written else {"type": "text", "text": part} for part in parts]
            yield {"role": role, "content": parts}


def rendered(processor, template, messages, options):
    """The conversation as text; None where the template refuses it or leaves out what somebody says."""
    family = family_of(template)
    texts = [part for role, parts in messages if role not in ("assistant", "call") for part in parts if part[0] != "@"]
    media = [part[1:] for _, parts in messages for part in parts if part[0] == "@"]
    for inline, arguments in ((False, dict), (True, dict), (True, json.dumps)):
        sent = list(openai(messages, family, inline=inline, arguments=arguments))
        try:
            text = processor.apply_chat_template(sent, tokenize=False, **options)
        except Exception:
            continue
        found = sum(text.count(written) for written in placeholders(family).values())
        printed = any(part in text for part in ("'type': 'text'", '"type": "text"'))  # as the template was given them
        if (
            not printed
            and found == len(media)
            and all(text.count(part) == 1 or text.count(part.strip()) == 1 for part in texts)
        ):
            return text
    return None


def placeholders(family):
    """Kind -> what the template writes for a medium."""
    written = {name.split("_")[0]: text for name, text in family.media.items()}
    return {kind: next((w for w, e in family.expand.items() if text in e), text) for kind, text in written.items()}


def truth(text, messages, tokens, family, tokenizer, *, is_free):
    """The turn of every token: of media by their order, of text by the characters that the user said.

    `is_free`: a system message may be read as what the user says: None.
    """
    turns = [0] * len(text)
    media = {kind: [] for kind in placeholders(family)}
    turn = 0
    for role, parts in messages:
        turn += role == "user"
        for part in parts:
            if part[0] == "@":
                media[part[1:]].append(turn)
            elif role == "user":
                said = part if part in text else part.strip()
                start = text.index(said)
                turns[start : start + len(said)] = [turn] * len(said)
    special = {token for token, added in tokenizer.added_tokens_decoder.items() if added.special}
    if is_free and messages[0][0] == "system":
        start = text.index(messages[0][1][0])
        end = next(place for place in range(start, len(text)) if turns[place] or text[place] == "<")
        turns[start:end] = [None] * (end - start)
    expected = [
        0 if token in special else next(filter(None, turns[start:end]), None if None in turns[start:end] else 0)
        for token, (start, end) in zip(tokens["input_ids"], tokens["offset_mapping"], strict=True)
    ]
    for name, placeholder in family.media.items():
        token, owners = tokenizer.convert_tokens_to_ids(placeholder), media[name.split("_")[0]]
        columns = [column for column, found in enumerate(tokens["input_ids"]) if found == token]
        for order, column in enumerate(columns):
            expected[column] = owners[order * len(owners) // len(columns)]
    return expected


def readings(template, spec, processor):
    """(name of a conversation, text of a token and what surrounds it, expected and read turn) of every token, and the
    names of the conversations that the template refuses."""
    family = family_of(template)
    tokenizer = getattr(processor, "tokenizer", processor)
    read, refused = [], []
    for name, messages, options in conversations([f"@{kind}" for kind in placeholders(family)]):
        text = rendered(processor, template, messages, {**options, "tools_in_user_message": False})
        if text is None:
            refused.append(name)
            continue
        text = expanded(text, {written: written * 2 for written in family.media.values()} | family.expand)
        tokens = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        found = route(torch.tensor([tokens["input_ids"]]), spec).turn[0].tolist()
        number = {turn: order for order, turn in enumerate(sorted({0, *found}))}  # results of tools may take a number
        expected = truth(text, messages, tokens, family, tokenizer, is_free=template in SYSTEM_IN_USER_TURN)
        for (start, end), want, got in zip(tokens["offset_mapping"], expected, found, strict=True):
            around = f"{text[max(start - 40, 0) : start]}[{text[start:end]}]{text[end : end + 40]}"
            read.append((name, around, want if want is not None else number[got], number[got]))
    return read, refused


def is_refused(template, name):
    """Whether the model's own template has no such conversation."""
    base = template.removesuffix("_training")
    if name.startswith("tool"):
        return base in NO_TOOLS or (base in QUOTED_RESULTS and name.endswith("1"))
    return base == "gemma" and ("system" in name or name.startswith("several"))


def is_variant(template):
    """Whether another template, read in the default run, differs from it only in what is outside user turns."""
    return template.endswith(("_training", "_v2", "_v3", "_v4", "_v5")) or template in VARIANTS


@pytest.mark.parametrize(
    "template", [pytest.param(name, marks=[pytest.mark.slow] * is_variant(name)) for name in TEMPLATES]
)
def test_every_token_is_read_as_it_was_said(template, model_of):
    config, processor = model_of(template)
    spec = RoutingSpec.from_pretrained(config, processor)
    read, refused = readings(template, spec, processor)
    assert [reading for reading in read if reading[2] != reading[3]] == []
    assert len({name for name, *_ in read}) >= 18
    assert [name for name in refused if not is_refused(template, name)] == []


# Written by hand: neighbouring tokens of the same modality (0 text, 1 visual, 2 audio) and turn.
SPANS = {
    "qwen2_5_vl": (
        [
            ("user", ["@image", "@video", "Same street?"]),
            ("assistant", ["No."]),
            ("user", ["Then where", "@image", "is it?\n"]),
        ],
        {"add_generation_prompt": True, "add_vision_id": True},
        [
            ("<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n", 0, 0),
            ("<|im_start|>user\nPicture 1: <|vision_start|>", 0, 0),
            ("<|image_pad|><|image_pad|>", 1, 1),
            ("<|vision_end|>Video 1: <|vision_start|>", 0, 0),
            ("<|video_pad|><|video_pad|>", 1, 1),
            ("<|vision_end|>", 0, 0),
            ("Same street?", 0, 1),
            ("<|im_end|>\n<|im_start|>assistant\nNo.<|im_end|>\n<|im_start|>user\n", 0, 0),
            ("Then where", 0, 2),
            ("Picture 2: <|vision_start|>", 0, 0),
            ("<|image_pad|><|image_pad|>", 1, 2),
            ("<|vision_end|>", 0, 0),
            ("is it?\n", 0, 2),
            ("<|im_end|>\n<|im_start|>assistant\n", 0, 0),
        ],
    ),
    "llama3": (
        [
            ("system", ["Be brief."]),
            ("user", ["Hear", "@audio", "and see", "@image"]),
            ("assistant", ["A bell."]),
            ("user", ["@audio"]),
            ("assistant", ["A horn."]),
        ],
        {},
        [
            ("<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>", 0, 0),
            ("<|start_header_id|>user<|end_header_id|>\n\n", 0, 0),
            ("Hear", 0, 1),
            ("<audio><audio>", 2, 1),
            ("and see", 0, 1),
            ("<image><image>", 1, 1),
            ("<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\nA bell.<|eot_id|>", 0, 0),
            ("<|start_header_id|>user<|end_header_id|>\n\n", 0, 0),
            ("<audio><audio>", 2, 2),
            ("<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\nA horn.<|eot_id|>", 0, 0),
        ],
    ),
    "gemma3": (
        [("user", ["What is this?", "@image"]), ("assistant", ["A cat."]), ("user", ["@image", "And this"])],
        {"add_generation_prompt": True},
        [
            ("<bos><start_of_turn>user\n", 0, 0),
            ("What is this?", 0, 1),
            ("\n\n<start_of_image>", 0, 0),
            ("<image_soft_token><image_soft_token><image_soft_token>", 1, 1),
            ("<end_of_image>\n\n<end_of_turn>\n<start_of_turn>model\nA cat.<end_of_turn>\n", 0, 0),
            ("<start_of_turn>user\n\n\n<start_of_image>", 0, 0),
            ("<image_soft_token><image_soft_token><image_soft_token>", 1, 2),
            ("<end_of_image>\n\n", 0, 0),
            ("And this", 0, 2),
            ("<end_of_turn>\n<start_of_turn>model\n", 0, 0),
        ],
    ),
    "llava_next": (
        [
            ("system", ["Be brief."]),
            ("user", ["What is this?", "@image"]),
            ("assistant", ["A cat."]),
            ("user", ["Sure [or not]?"]),
        ],
        {"add_generation_prompt": True},
        [
            ("<<SYS>>\nBe brief.\n<</SYS>>\n\n[INST] ", 0, 0),
            ("<image><image>", 1, 1),
            ("\n", 0, 0),
            ("What is this?", 0, 1),
            (" [/INST] A cat.</s> [INST] ", 0, 0),
            ("Sure [or not]?", 0, 2),
            (" [/INST]", 0, 0),
        ],
    ),
    "qwen3": (
        [
            ("user", ["@image", "Is it high water?"]),
            ("call", ["Harbor-17"]),
            ("tool", ["At 9:30."]),
            ("assistant", ["<think>\nAlmost.\n</think>\n\nSoon."]),
            ("user", ["Sure?"]),
        ],
        {"add_generation_prompt": True, "enable_thinking": False},
        [
            ("<|im_start|>user\n", 0, 0),
            ("<image><image>", 1, 1),
            ("Is it high water?", 0, 1),
            ('<|im_end|>\n<|im_start|>assistant\n<tool_call>\n{"name": "find_tide", "arguments": ', 0, 0),
            ('{"port": "Harbor-17"}}\n</tool_call><|im_end|>\n', 0, 0),
            ("<|im_start|>user\n<tool_response>\nAt 9:30.\n</tool_response><|im_end|>\n", 0, 0),
            ("<|im_start|>assistant\nSoon.<|im_end|>\n<|im_start|>user\n", 0, 0),
            ("Sure?", 0, 3),  # the result of the tool has a user turn of its own
            ("<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n", 0, 0),
        ],
    ),
    "deepseekv3": (
        [
            ("system", ["Be brief."]),
            ("user", ["What is", "@image", "it?"]),
            ("call", ["Harbor-17"]),
            ("tool", ["A quay."]),
            ("assistant", ["Yes, one."]),
            ("user", ["Whose?"]),
        ],
        {"add_generation_prompt": True},
        [
            ("<｜begin▁of▁sentence｜>Be brief.<｜User｜>", 0, 0),
            ("What is", 0, 1),
            ("<image><image>", 1, 1),
            ("it?", 0, 1),
            (
                "<｜Assistant｜><｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>find_tide\n```json\n",
                0,
                0,
            ),
            ('{"port": "Harbor-17"}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜><｜end▁of▁sentence｜>', 0, 0),
            ("<｜tool▁outputs▁begin｜><｜tool▁output▁begin｜>A quay.<｜tool▁output▁end｜>", 0, 0),
            ("<｜tool▁outputs▁end｜>Yes, one.<｜end▁of▁sentence｜><｜User｜>", 0, 0),
            ("Whose?", 0, 2),
            ("<｜Assistant｜><think>\n", 0, 0),
        ],
    ),
}


@pytest.mark.parametrize("template", SPANS)
def test_spans_are_those_written_by_hand(template, model_of):
    messages, options, spans = SPANS[template]
    config, processor = model_of(template)
    spec = RoutingSpec.from_pretrained(config, processor)
    family, tokenizer = family_of(template), getattr(processor, "tokenizer", processor)
    text = rendered(processor, template, messages, options)
    text = expanded(text, {written: written * 2 for written in family.media.values()} | family.expand)
    assert text == "".join(span for span, *_ in spans)
    tokens = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    routing = route(torch.tensor([tokens["input_ids"]]), spec)
    written = [(modality, turn) for span, modality, turn in spans for _ in span]  # of every character
    found = zip(routing.modality[0].tolist(), routing.turn[0].tolist(), strict=True)
    assert list(found) == [written[end - 1] for _, end in tokens["offset_mapping"]]
