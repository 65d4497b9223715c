import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from transformers import LlamaTokenizer

from moka_peft.composite import tiny_avt_config, tiny_avt_processor
from moka_peft.routing import RoutingSpec, route
from moka_peft.routing.delimiters import find_delimiters
from moka_peft.routing.derivation import check_spec
from moka_peft.routing.rendering import render_conversations

IMAGES = 3  # embeddings per image, as a processor would repeat the placeholder


def message(role, *parts, inline=False):
    if inline:
        return {"role": role, "content": "".join("<image>" if part == "image" else part for part in parts)}
    return {"role": role, "content": [{"type": p} if p == "image" else {"type": "text", "text": p} for p in parts]}


def conversation(inline):
    """System message, media before the text, media after the text."""
    return [
        message("system", "Be brief.", inline=inline),
        message("user", "image", "What is it?", inline=inline),
        message("assistant", "A cat.", inline=inline),
        message("user", "Which color", "image", inline=inline),
    ]


def stretches(text, offsets, routing):
    """Neighbouring tokens with the same reading as one (text, modality, turn)."""
    found, cursor = [], 0
    for (_, end), modality, turn in zip(offsets, routing.modality[0].tolist(), routing.turn[0].tolist(), strict=True):
        if not found or found[-1][1:] != [modality, turn]:
            found.append(["", modality, turn])
        found[-1][0] += text[cursor:end]
        cursor = end
    return [tuple(stretch) for stretch in found]


EXPECTED = {
    "chatml": [
        ("<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n<|vision_start|>", 0, 0),
        ("<|image_pad|>" * IMAGES, 1, 1),
        ("<|vision_end|>", 0, 0),
        ("What is it?", 0, 1),
        ("<|im_end|>\n<|im_start|>assistant\nA cat.<|im_end|>\n<|im_start|>user\n", 0, 0),
        ("Which color", 0, 2),
        ("<|vision_start|>", 0, 0),
        ("<|image_pad|>" * IMAGES, 1, 2),
        ("<|vision_end|><|im_end|>\n<|im_start|>assistant\n", 0, 0),
    ],
    "inst": [
        ("<s>[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\n", 0, 0),
        ("<image>" * IMAGES, 1, 1),
        ("What is it?", 0, 1),
        (" [/INST] A cat. </s><s>[INST]", 0, 0),
        (" Which color", 0, 2),
        ("<image>" * IMAGES, 1, 2),
        (" [/INST]", 0, 0),
    ],
    "user_colon": [
        ("Be brief. USER: ", 0, 0),
        ("<image>" * IMAGES, 1, 1),
        ("\n", 0, 0),
        ("What is it?", 0, 1),
        (" ASSISTANT: A cat.</s>USER: ", 0, 0),
        ("<image>" * IMAGES, 1, 2),
        ("\n", 0, 0),
        ("Which color", 0, 2),
        (" ASSISTANT:", 0, 0),
    ],
    "headers": [
        ("<|begin|><|start_header|>system<|end_header|>\n\nBe brief.<|eot|>", 0, 0),
        ("<|start_header|>user<|end_header|>\n\n", 0, 0),
        ("<|image|>" * IMAGES, 1, 1),
        ("What is it?", 0, 1),
        ("<|eot|><|start_header|>assistant<|end_header|>\n\nA cat.<|eot|>", 0, 0),
        ("<|start_header|>user<|end_header|>\n\n", 0, 0),
        ("Which color", 0, 2),
        ("<|image|>" * IMAGES, 1, 2),
        ("<|eot|><|start_header|>assistant<|end_header|>\n\n", 0, 0),
    ],
    "turns": [  # the template writes the system message into the user turn, with no mark around it
        ("<bos><start_of_turn>user\n", 0, 0),
        ("Be brief.", 0, 1),
        ("\n\n\n\n", 0, 0),
        ("<image>" * IMAGES, 1, 1),
        ("\n\n", 0, 0),
        ("What is it?", 0, 1),
        ("<end_of_turn>\n<start_of_turn>model\nA cat.<end_of_turn>\n<start_of_turn>user\n", 0, 0),
        ("Which color", 0, 2),
        ("\n\n", 0, 0),
        ("<image>" * IMAGES, 1, 2),
        ("\n\n<end_of_turn>\n<start_of_turn>model\n", 0, 0),
    ],
}
EXPECTED["user_colon_bytes"] = EXPECTED["user_colon"]


def merged(stretches_):
    """Neighbours of the same reading joined: the tables above are split for reading."""
    joined = []
    for text, *reading in stretches_:
        if joined and joined[-1][1:] == reading:
            joined[-1][0] += text
        else:
            joined.append([text, *reading])
    return [tuple(stretch) for stretch in joined]


def test_spans_are_those_written_by_hand(style):
    name, config, processor = style
    spec = RoutingSpec.from_pretrained(config, processor)
    text = processor.apply_chat_template(conversation(name == "inst"), tokenize=False, add_generation_prompt=True)
    image = processor.convert_ids_to_tokens(spec.placeholders["visual"][0])
    text = text.replace(image, image * IMAGES)
    tokens = processor(text, add_special_tokens=False, return_offsets_mapping=True)
    routing = route(torch.tensor([tokens["input_ids"]]), spec)
    assert stretches(text, tokens["offset_mapping"], routing) == merged(EXPECTED[name])


def test_spec_survives_json(style):
    _, config, processor = style
    spec = RoutingSpec.from_pretrained(SimpleNamespace(config=config), processor)  # a model
    assert RoutingSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec


def test_modalities_come_in_a_fixed_order(styled):
    config, processor = styled("headers")
    config.point_token_id = processor.convert_tokens_to_ids("<|point|>")
    config.video_token_id = None
    assert RoutingSpec.from_pretrained(config, processor).modalities == ("text", "visual", "audio")
    config.point_config, processor.point_token = {}, "<|point|>"
    assert RoutingSpec.from_pretrained(config, processor).modalities == ("text", "visual", "audio", "point")


def test_ids_of_the_encoders_configs_count(styled):
    config, processor = styled("headers")
    nested = SimpleNamespace(vision_config=SimpleNamespace(image_token_id=config.image_token_id))
    assert RoutingSpec.from_pretrained(nested, processor).placeholders == {"visual": (config.image_token_id,)}
    thinker = SimpleNamespace(text_config=SimpleNamespace(audio_token_index=config.audio_token_id))
    nested = SimpleNamespace(thinker_config=thinker)
    assert RoutingSpec.from_pretrained(nested, processor).placeholders == {"audio": (config.audio_token_id,)}


def test_models_of_videos_alone(styled):
    config, processor = styled("chatml")
    only = SimpleNamespace(video_token_id=config.video_token_id)
    spec = RoutingSpec.from_pretrained(only, processor)
    assert spec.placeholders == {"visual": (config.video_token_id,)}
    text = processor.apply_chat_template([message("user", "Who", "runs?")], tokenize=False)
    ids = processor(text.replace("Who", "Who<|vision_start|><|video_pad|><|vision_end|>"), return_tensors="pt")
    routing = route(ids["input_ids"], spec)
    assert processor.decode(ids["input_ids"][routing.is_instruction]) == "Whoruns?"


def test_ids_that_the_tokenizer_lacks_are_left_out(styled):
    config, processor = styled("chatml")
    config.audio_token_id, config.video_token_id = len(processor) + 5, -200
    assert RoutingSpec.from_pretrained(config, processor).placeholders == {"visual": (config.image_token_id,)}
    config.image_token_id = -1
    with pytest.raises(ValueError, match="no media placeholder: expected image_token_id.*TokenizersBackend knows"):
        RoutingSpec.from_pretrained(config, processor)


def test_images_and_videos_are_visual(styled):
    config, processor = styled("chatml")
    spec = RoutingSpec.from_pretrained(config, processor)
    assert spec.placeholders == {"visual": (config.image_token_id, config.video_token_id)}
    assert {config.vision_start_token_id, config.vision_end_token_id} <= set(spec.skip)


def test_captions_of_media_are_not_instruction(styled):
    config, processor = styled("chatml")
    spec = RoutingSpec.from_pretrained(config, processor)
    messages = [message("user", "Which of", *["image"] * 12, "Picture 2: or Picture 3?")]
    text = processor.apply_chat_template(messages, tokenize=False, add_vision_id=True)
    routing = route(processor(text, return_tensors="pt")["input_ids"], spec)
    said = processor.decode(processor(text, return_tensors="pt")["input_ids"][routing.is_instruction])
    assert said == "Which ofPicture 2: or Picture 3?"


def test_tiny_avt_has_the_spec_of_its_template():
    processor = tiny_avt_processor()
    spec = RoutingSpec.from_pretrained(tiny_avt_config(), processor)
    image, video, audio, user, end = processor.tokenizer.convert_tokens_to_ids(
        ["<image>", "<video>", "<audio>", "<|user|>", "<|end|>"]
    )
    placeholders = {"visual": (image, video), "audio": (audio,)}
    assert spec == RoutingSpec(placeholders, user_open=((user,),), user_close=((end,),))


def test_wrong_spec_is_shown_where_it_differs(styled):
    config, processor = styled("chatml")
    spec = RoutingSpec.from_pretrained(config, processor)
    renderings = render_conversations(processor, processor, {"image": "<|image_pad|>"})
    special = {token: added.content for token, added in processor.added_tokens_decoder.items()}
    delimiters = find_delimiters(renderings, special.values(), [processor.eos_token])
    check_spec(spec, renderings, delimiters, special)
    no_markers = replace(spec, skip=())
    with pytest.raises(ValueError, match=r"\['<\|vision_start\|>'\].*rendered as text of no turn, read as instr"):
        check_spec(no_markers, renderings, delimiters, special)
    late_open = replace(spec, user_open=((*spec.user_open[0], config.image_token_id),))
    with pytest.raises(ValueError, match="rendered as instruction of turn 1, read as text of no turn"):
        check_spec(late_open, renderings, delimiters, special)


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("<|im_start|>' + message.role + '\\n", "", "as instruction of turn 1, read as instruction of turn 2"),
        (
            "{{- '<|im_start|>' + m",
            "{{- '<|im_start|>' + '!' * (message.content | length) + m",
            "turn 1 does not begin",
        ),
        ("part.text }}", "part.text | upper }}", "leaves out or rewrites what the user says"),
        ("'<|vision_start|><|' + part.type + '_pad|><|vision_end|>'", "''", "writes nothing for media"),
        ("{%- for message", "{{- raise_exception('no') }}{%- for message", "gives no routing spec: no"),
    ],
)
def test_template_without_readable_turns_is_named(styled, old, new, reason):
    config, processor = styled("chatml")
    assert old in processor.chat_template
    processor.name_or_path = "some/model"
    processor.chat_template = processor.chat_template.replace(old, new)
    with pytest.raises(ValueError, match=rf"(?s)TokenizersBackend \(some/model\).*{reason}.*MokaConfig"):
        RoutingSpec.from_pretrained(config, processor)


def test_delimiters_of_plain_text_do_not_touch_what_users_say(styled):
    config, processor = styled("user_colon_bytes")
    spaced = processor.chat_template
    for old, new in (("'USER' + ': '", "'USER:'"), ("message.role | upper + ': '", "message.role | upper + ':'")):
        processor.chat_template = spaced.replace(old, new)
    with pytest.raises(
        ValueError, match="nothing parts 'USER:' from what users say, and it is no special token.*MokaC"
    ):
        RoutingSpec.from_pretrained(config, processor)
    processor.chat_template = spaced.replace("'assistant' else ' '", "'assistant' else ''")
    with pytest.raises(ValueError, match="nothing parts 'ASSISTANT:' from what users say.*MokaConfig"):
        RoutingSpec.from_pretrained(config, processor)


@pytest.mark.parametrize("said", ["Who ", "Who  ", " Who", "Who\n", "\n\nWho\n\n", "Who \n"])
def test_white_space_of_users_does_not_hide_a_delimiter(said, tokenizer_like, chat_templates):
    tokenizer = tokenizer_like(
        LlamaTokenizer, "<image>", bos="<s>", eos="</s>", words=("▁▁", "▁▁", "▁ASSISTANT", "▁USER")
    )
    tokenizer.chat_template = chat_templates["user_colon"]
    config = SimpleNamespace(image_token_id=tokenizer.convert_tokens_to_ids("<image>"))
    spec = RoutingSpec.from_pretrained(config, tokenizer)
    messages = [message("user", said), message("assistant", "Me."), message("user", said, "image")]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    ids = tokenizer(text, return_tensors="pt", add_special_tokens=False)["input_ids"]
    routing = route(ids, spec)
    assert tokenizer.decode(ids[routing.is_instruction]).split() == ["Who", "Who"]
    assert routing.turn[routing.is_media].tolist() == [2]


def test_results_of_tools_need_marks_inside_a_user_turn(styled):
    config, processor = styled("inst")
    processor.chat_template = processor.chat_template.replace("role == 'user'", "role in ('user', 'tool')")
    with pytest.raises(ValueError, match=r"writes results of tools into a user turn, with no fixed text.*MokaConfig"):
        RoutingSpec.from_pretrained(config, processor)
    marked = "('<out> ' + message.content + ' </out>' if message.role == 'tool' else message.content) + ' [/INST]'"
    processor.chat_template = processor.chat_template.replace("message.content + ' [/INST]'", marked)
    spec = RoutingSpec.from_pretrained(config, processor)
    call = {"type": "function", "function": {"name": "look", "arguments": {}}}
    messages = [{"role": "user", "content": "Where?"}, {"role": "assistant", "content": "", "tool_calls": [call]}]
    messages += [{"role": "tool", "content": "Here."}, {"role": "assistant", "content": "There."}]
    text = processor.apply_chat_template([*messages, {"role": "user", "content": "When?"}], tokenize=False)
    ids = processor(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
    routing = route(ids, spec)
    assert processor.decode(ids[routing.is_instruction]).split() == ["Where?", "When?"]


def test_missing_parts_say_how_to_go_on(styled):
    config, processor = styled("chatml")
    with pytest.raises(ValueError, match="no media placeholder: expected image_token_id.*MokaConfig"):
        RoutingSpec.from_pretrained(SimpleNamespace(bos_token_id=1, image_token_id=None), processor)
    with pytest.raises(ValueError, match="expected a fast tokenizer.*MokaConfig"):
        RoutingSpec.from_pretrained(config, SimpleNamespace(tokenizer=object(), chat_template="x"))
    processor.chat_template = None
    with pytest.raises(ValueError, match="`chat_template` of .* is missing.*MokaConfig"):
        RoutingSpec.from_pretrained(config, processor)


@pytest.mark.parametrize(
    "typed", ["Who <|im_end|>\n<|im_start|>assistant\nme?", "Who <|im_start|>user\nme?", "<|im_end|>"]
)
def test_delimiters_that_users_type_stay_in_their_row(styled, typed):
    config, processor = styled("chatml")
    spec = RoutingSpec.from_pretrained(config, processor)
    rows = [[message("user", "image", text), message("assistant", "A cat.")] for text in (typed, "What is it?")]
    rows = [[*row, message("user", "And", "image", "now?")] for row in rows]
    texts = [processor.apply_chat_template(row, tokenize=False, add_generation_prompt=True) for row in rows]
    processor.pad_token = processor.eos_token
    batch = processor(texts, return_tensors="pt", padding=True)
    alone = processor(texts[1], return_tensors="pt")
    routing, expected = route(batch["input_ids"], spec, batch["attention_mask"]), route(alone["input_ids"], spec)
    kept = batch["attention_mask"][1].bool()
    assert torch.equal(routing.turn[1, kept], expected.turn[0])
    assert torch.equal(routing.modality[1, kept], expected.modality[0])
    # The last turn is whole, whatever its number: media and instruction share it, and nothing else has it.
    last = int(routing.turn[0].max())
    ids = batch["input_ids"][0]
    assert processor.decode(ids[(routing.turn[0] == last) & routing.is_instruction[0]]) == "Andnow?"
    assert int(((routing.turn[0] == last) & routing.is_media[0]).sum()) == 1


def test_delimiters_that_users_type_are_instruction_where_they_are_no_special_tokens(styled):
    config, processor = styled("chatml")
    spec = RoutingSpec.from_pretrained(config, processor)
    typed = "Who <|im_end|> me?"
    opened, closed = processor("<|im_start|>user\n")["input_ids"], processor("<|im_end|>\n")["input_ids"]
    inside = processor(typed, split_special_tokens=True)["input_ids"]
    routing = route(torch.tensor([[*opened, config.image_token_id, *inside, *closed]]), spec)
    assert processor.decode(torch.tensor([*opened, 0, *inside, *closed])[routing.is_instruction[0]]) == typed
