"""Templates that take one turn: the spec says where the answer starts."""

from types import SimpleNamespace

import pytest
from transformers import LlamaTokenizer

from moka_peft.routing import RoutingSpec, route


def message(role, *parts):
    return {"role": role, "content": [{"type": p} if p == "image" else {"type": "text", "text": p} for p in parts]}


SINGLE_TURN = """
{%- if messages | map(attribute='role') | list in (['user'], ['user', 'assistant']) %}
  {{- bos_token }}
  {%- for part in messages[0].content %}
    {{- part.text if part.type == 'text' else '<image>\n' }}
  {%- endfor %}
  {{- '<answer>' }}
  {%- if messages | length > 1 %}
    {{- messages[1].content[0].text + eos_token }}
  {%- endif %}
{%- else %}
  {{- raise_exception('one question') }}
{%- endif %}
"""


@pytest.mark.parametrize("start", ["\nAnswer:", " Answer: ", "<sep>", ""])
def test_single_turn_ends_where_the_answer_starts(tokenizer_like, start):
    tokenizer = tokenizer_like(LlamaTokenizer, "<image> <sep>", bos="<s>", eos="</s>")
    tokenizer.chat_template = SINGLE_TURN.replace("<answer>", start.replace("\n", "\\n"))
    image = tokenizer.convert_tokens_to_ids("<image>")
    spec = RoutingSpec.from_pretrained(SimpleNamespace(image_token_id=image), tokenizer)
    assert bool(spec.answer_start) == bool(start) and not spec.user_open and not spec.user_close
    messages = [message("user", "image", "Who is\nit?"), message("assistant", "Me.")]
    texts = [tokenizer.apply_chat_template(messages[:length], tokenize=False) for length in (1, 2)]
    prompt, ids = (tokenizer(text, return_tensors="pt", add_special_tokens=False)["input_ids"] for text in texts)
    routing = route(ids, spec, prompt_length=prompt.shape[1])
    assert tokenizer.decode(ids[routing.is_instruction]).split() == ["Who", "is", "it?"]
    assert routing.turn[routing.is_media].tolist() == [1]


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("<answer>", "\\n", "is read as of turn"),  # users write line ends too
        ("'<answer>'", "'Answer:'", "nothing parts 'Answer:' from what users say"),
        ("{{- bos_token }}", "{{- bos_token + 'Question: ' }}", "with words of its own before the user's: 'Question:'"),
        ("part.text if", "part.text | upper if", "leaves out or rewrites"),
        ("'<image>\n'", "'\n'", "is read as of turn|writes nothing for media"),
        ("'<answer>'", "'\n\n' if messages | length > 1 else '|'", "is read as of turn"),
    ],
)
def test_single_turn_without_a_readable_answer_is_named(tokenizer_like, old, new, reason):
    tokenizer = tokenizer_like(LlamaTokenizer, "<image>", bos="<s>", eos="</s>")
    assert old in SINGLE_TURN
    tokenizer.chat_template = SINGLE_TURN.replace(old, new).replace("<answer>", "\\nAnswer:")
    image = tokenizer.convert_tokens_to_ids("<image>")
    with pytest.raises(ValueError, match=rf"LlamaTokenizer.*({reason}).*MokaConfig"):
        RoutingSpec.from_pretrained(SimpleNamespace(image_token_id=image), tokenizer)
