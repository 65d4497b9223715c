"""Chat templates in the shape of the families' own, written for the tiny tokenizers.

A message's content is a string, or a list of parts of which media are written as `media` says: {"image": text, ...}.
"""

_PARTS = """\
{%- set written = MEDIA %}
{%- macro body(content) -%}
  {%- if content is string %}
    {{- content }}
  {%- else %}
    {%- for part in content %}
      {{- part.text if part.type == 'text' else written[part.type] }}
    {%- endfor %}
  {%- endif %}
{%- endmacro %}
"""

_INST = """\
{%- set first = namespace(system='') %}
{%- for message in messages %}
  {%- if message.role == 'system' %}
    {%- set first.system = '<<SYS>>\\n' + body(message.content) + '\\n<</SYS>>\\n\\n' %}
  {%- elif message.role == 'user' %}
    {{- bos_token + '[INST] ' + first.system + body(message.content) | trim + ' [/INST]' }}
    {%- set first.system = '' %}
  {%- else %}
    {{- ' ' + body(message.content) | trim + ' ' + eos_token }}
  {%- endif %}
{%- endfor %}
"""

_HEADERS = """\
{{- bos_token }}
{%- for message in messages %}
  {{- '<|start_header_id|>' + message.role + '<|end_header_id|>\\n\\n' + body(message.content) | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
  {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
"""

_CHATML = """\
{%- if messages[0].role != 'system' %}
  {{- '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}
{%- endif %}
{%- for message in messages %}
  {{- '<|im_start|>' + message.role + '\\n' + body(message.content) + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
  {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""

_USER_COLON = """\
{%- for message in messages %}
  {%- if message.role == 'system' %}
    {{- body(message.content) + ' ' }}
  {%- else %}
    {{- message.role | upper + ': ' + body(message.content) + (eos_token if message.role == 'assistant' else ' ') }}
  {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
  {{- 'ASSISTANT:' }}
{%- endif %}
"""

TEMPLATES = {"inst": _INST, "headers": _HEADERS, "chatml": _CHATML, "user_colon": _USER_COLON}


def chat_template(shape: str, media: dict[str, str] | None = None) -> str:
    """A template of one of the shapes in `TEMPLATES`; media: how each kind of part is written."""
    return _PARTS.replace("MEDIA", repr(media or {})) + TEMPLATES[shape]
