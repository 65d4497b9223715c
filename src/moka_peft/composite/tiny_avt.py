"""The embedded default: an audio-visual-text composite of about a million parameters, small enough for one CPU.

Images are strips of 32 x 128 pixels (height x width), such as four digits of 32 x 32 side by side: 16 embeddings.
Audio is cut into 2 s of 16 kHz waveform: 25 embeddings of 80 ms each.
"""

from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, PreTrainedTokenizerFast, ViTConfig, WhisperConfig, WhisperFeatureExtractor
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from .config import CompositeConfig
from .model import CompositeForConditionalGeneration
from .placeholders import PLACEHOLDERS
from .processor import CompositeProcessor

FOLDER = Path(__file__).parent / "tiny_avt"

IMAGE_HEIGHT, IMAGE_WIDTH, PATCH = 32, 128, 16
TOKENS_PER_IMAGE = (IMAGE_HEIGHT // PATCH) * (IMAGE_WIDTH // PATCH)
SAMPLE_RATE_HZ, SEGMENT_SECONDS, HOP_SAMPLES, MEL_BANDS = 16_000, 2, 640, 40
TOKENS_PER_SEGMENT = SEGMENT_SECONDS * SAMPLE_RATE_HZ // HOP_SAMPLES // 2
"""The encoder's second convolution halves the frames: 25 embeddings."""

PAD, END, SYSTEM, USER, ASSISTANT = "<|pad|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>"
SPECIAL_TOKENS = [PAD, END, SYSTEM, USER, ASSISTANT, *PLACEHOLDERS.values()]

CHAT_TEMPLATE = """\
{%- macro render(content) -%}
  {%- if content is string -%}{{ content }}{%- else -%}
    {%- for part in content -%}
      {%- if part.type == 'text' -%}{{ part.text }}{%- else -%}{{ '<' + part.type + '>' }}{%- endif -%}
    {%- endfor -%}
  {%- endif -%}
{%- endmacro -%}
{%- for message in messages -%}
  {{- '<|' + message.role + '|>' -}}
  {%- if message.role == 'assistant' -%}
    {%- generation -%}{{ render(message.content) + '<|end|>' }}{%- endgeneration -%}
  {%- else -%}
    {{- render(message.content) + '<|end|>' -}}
  {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<|assistant|>' }}{%- endif -%}
"""

WORDS = """
a an and any are as at be between both by can do does each first for from has have how image in is it its kind last
left less many middle more most no not note notes of on only or order other picture played plays right same second see
hear shown sound sounds than that the then there third this to total type was were what when where which with yes you
digit digits number numbers count largest smallest sum greater smaller equal odd even higher lower highest lowest pitch
rising falling flute bell organ string tone tones timbre instrument melody before after fourth fifth position strip
written heard answer question much also video audio time times beginning end start sequence all different appear
appears match given equals instruments name read
"""
"""Words that are one token after a space; the others are spelled."""

OPENING_WORDS = "Answer Are At Count Do Does How In Is Listen Look Name Read The There What Where Which"

ANSWER_WORDS = """
zero one two three four five six seven eight nine ten yes no left right middle first second third fourth fifth last
even odd higher lower greater smaller equal more less same none both rising falling flute bell organ string
"""
"""Words that are one token at the start of an answer too, where no space comes before them."""


def tiny_avt_config() -> CompositeConfig:
    """The shape of tiny-avt: a 4-layer LLaMA of width 128, a 2-layer ViT and a 2-layer Whisper encoder of width 64."""
    tokenizer = tiny_avt_tokenizer()
    ids = {token: index for index, token in enumerate(SPECIAL_TOKENS)}
    return CompositeConfig(
        text_config=_text_config(len(tokenizer), ids),
        vision_config=_vision_config(),
        audio_config=_audio_config(),
        vision_projector={"type": "mlp", "hidden_size": 64},
        audio_projector={"type": "mlp", "hidden_size": 64},
        image_token_id=ids[PLACEHOLDERS["image"]],
        video_token_id=ids[PLACEHOLDERS["video"]],
        audio_token_id=ids[PLACEHOLDERS["audio"]],
    )


def _vision_config() -> ViTConfig:
    return ViTConfig(
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=128,
        image_size=(IMAGE_HEIGHT, IMAGE_WIDTH),
        patch_size=PATCH,
    )


def _audio_config() -> WhisperConfig:
    """A Whisper config of which only the encoder is built."""
    return WhisperConfig(
        d_model=64,
        encoder_layers=2,
        encoder_attention_heads=4,
        encoder_ffn_dim=128,
        num_mel_bins=MEL_BANDS,
        max_source_positions=TOKENS_PER_SEGMENT,
        decoder_layers=0,
        vocab_size=1,
        pad_token_id=0,
        bos_token_id=0,
        eos_token_id=0,
        decoder_start_token_id=0,
    )


def _text_config(vocab_size: int, ids: dict[str, int]) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        pad_token_id=ids[PAD],
        bos_token_id=None,
        eos_token_id=ids[END],
    )


def tiny_avt_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level unigram tokenizer: any text can be written, and a known word is one token.

    Built, not trained: one word scores higher than any way to spell it.
    """
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    after_space = ["\u0120" + word for word in (WORDS + ANSWER_WORDS).split()]
    words = dict.fromkeys([*after_space, *OPENING_WORDS.split(), *ANSWER_WORDS.split()])
    pieces = [(token, 0.0) for token in SPECIAL_TOKENS] + [(byte, -20.0) for byte in alphabet]
    pieces += [(word, -10.0) for word in words]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=0))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in SPECIAL_TOKENS])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=PAD, eos_token=END, additional_special_tokens=SPECIAL_TOKENS[2:]
    )


def tiny_avt_processor() -> CompositeProcessor:
    """The processor of tiny-avt: Pillow for images, log-mel features of 40 bands every 40 ms for audio."""
    return CompositeProcessor(
        ViTImageProcessorPil(
            size={"height": IMAGE_HEIGHT, "width": IMAGE_WIDTH}, image_mean=[0.5] * 3, image_std=[0.5] * 3
        ),
        WhisperFeatureExtractor(
            feature_size=MEL_BANDS,
            sampling_rate=SAMPLE_RATE_HZ,
            hop_length=HOP_SAMPLES,
            chunk_length=SEGMENT_SECONDS,
            n_fft=1024,
        ),
        tiny_avt_tokenizer(),
        tokens_per_image=TOKENS_PER_IMAGE,
        tokens_per_segment=TOKENS_PER_SEGMENT,
        segment_seconds=SEGMENT_SECONDS,
        chat_template=CHAT_TEMPLATE,
    )


def load_tiny_avt(dtype: str = "auto") -> tuple[CompositeForConditionalGeneration, CompositeProcessor]:
    """The trained model and its processor, from the package's own folder. Raises FileNotFoundError without it."""
    if not (FOLDER / "model.safetensors").is_file():
        raise FileNotFoundError(f"tiny-avt has no weights in {FOLDER}. Make them with scripts/build_tiny_avt.py.")
    model = CompositeForConditionalGeneration.from_pretrained(FOLDER, dtype=dtype)
    return model, CompositeProcessor.from_pretrained(FOLDER)
