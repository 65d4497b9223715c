"""Batches of real processors in tiny models of their families: every row is read as its sample alone."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers as tf
from transformers import GemmaTokenizer

from moka_peft.data import Collator

from ..routing import test_real_processors as real
from ..routing.conftest import CHATML, USER_COLON, train_like
from .conversations import mixed

TOWER = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4)
TEXT = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1)
PIXELS = dict(image_size=28, patch_size=14)
PINPOINTS = [[28, 56], [56, 28]]
ROPE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 2, 2]}
QWEN_VISION = dict(depth=2, hidden_size=32, intermediate_size=48, num_heads=2, patch_size=14, out_hidden_size=32)
SIGLIP = dict(**TOWER, **PIXELS, vision_use_head=False)


def text(config: type, processor: Any, **options: Any) -> Any:
    return config(**{**TEXT, "vocab_size": len(processor.tokenizer), **options})


def llava_next(config: Any, processor: Any) -> Any:
    vision = tf.CLIPVisionConfig(**TOWER, **PIXELS, projection_dim=32)
    options = dict(image_token_index=config.image_token_index, image_grid_pinpoints=PINPOINTS)
    config = tf.LlavaNextConfig(vision_config=vision, text_config=text(tf.LlamaConfig, processor), **options)
    return tf.LlavaNextForConditionalGeneration(config)


def llava_onevision(config: Any, processor: Any) -> Any:
    tokens = dict(image_token_index=config.image_token_index, video_token_index=config.video_token_index)
    config = tf.LlavaOnevisionConfig(
        vision_config=tf.SiglipVisionConfig(**SIGLIP),
        text_config=text(tf.Qwen2Config, processor),
        image_grid_pinpoints=PINPOINTS,
        **tokens,
    )
    return tf.LlavaOnevisionForConditionalGeneration(config)


def gemma3(config: Any, processor: Any) -> Any:
    tokens = {n: getattr(config, n) for n in ("image_token_index", "boi_token_index", "eoi_token_index")}
    decoder = text(tf.Gemma3TextConfig, processor, head_dim=16, query_pre_attn_scalar=16)
    options = dict(vision_config=tf.SiglipVisionConfig(**SIGLIP), mm_tokens_per_image=4)
    model = tf.Gemma3ForConditionalGeneration(tf.Gemma3Config(text_config=decoder, **options, **tokens))
    torch.nn.init.normal_(model.model.multi_modal_projector.mm_input_projection_weight)  # starts at zero
    return model


def idefics3(config: Any, processor: Any) -> Any:
    decoder = text(tf.LlamaConfig, processor, pad_token_id=processor.tokenizer.pad_token_id)
    options = dict(scale_factor=1, image_token_id=config.image_token_id, pad_token_id=0)
    config = tf.Idefics3Config(vision_config={**TOWER, **PIXELS}, text_config=decoder, **options)
    return tf.Idefics3ForConditionalGeneration(config)


def internvl(config: Any, processor: Any) -> Any:
    processor.image_seq_length = 1
    vision = tf.InternVLVisionConfig(**TOWER, image_size=[28, 28], patch_size=[14, 14])
    options = dict(image_token_id=config.image_token_id, image_seq_length=1)
    config = tf.InternVLConfig(vision_config=vision, text_config=text(tf.Qwen2Config, processor), **options)
    return tf.InternVLForConditionalGeneration(config)


def qwen3_vl(config: Any, processor: Any) -> Any:
    tokens = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
    vision = {**QWEN_VISION, "num_position_embeddings": 16, "deepstack_visual_indexes": [0]}
    decoder = {**TEXT, "vocab_size": len(processor.tokenizer), "head_dim": 16, "rope_parameters": ROPE}
    given = {name: getattr(config, name) for name in tokens}
    config = tf.Qwen3VLConfig(text_config=decoder, vision_config=vision, **given)
    return tf.Qwen3VLForConditionalGeneration(config)


def qwen2_5_omni(config: Any, processor: Any) -> Any:
    thinker = config.thinker_config
    names = [f"{kind}_token_id" for kind in ("image", "video", "audio", "audio_start", "audio_end", "vision_start")]
    audio = dict(num_mel_bins=8, encoder_layers=1, encoder_attention_heads=2, encoder_ffn_dim=16, d_model=16)
    config = tf.Qwen2_5OmniThinkerConfig(
        audio_config={**audio, "output_dim": 32, "n_window": 100},
        vision_config={**QWEN_VISION, "window_size": 56, "fullatt_block_indexes": [1]},
        text_config={**TEXT, "vocab_size": len(processor.tokenizer), "rope_parameters": ROPE},
        **{name: getattr(thinker, name) for name in names if getattr(thinker, name, None) is not None},
    )
    return tf.Qwen2_5OmniThinkerForConditionalGeneration(config)


def paligemma_processor(train: Any, templates: Any) -> Any:
    tokenizer = train(GemmaTokenizer, "<image>", bos="<bos>", eos="<eos>")
    images = real.image_processor("siglip", "SiglipImageProcessorPil", size=real.SMALL)
    images.image_seq_length = 4
    return tf.PaliGemmaConfig(**real.ids(tokenizer, image_token_index="<image>")), tf.PaliGemmaProcessor(
        images, tokenizer
    )


def paligemma(config: Any, processor: Any) -> Any:
    vision = tf.SiglipVisionConfig(**SIGLIP, projection_dim=32)
    options = dict(projection_dim=32, image_token_index=config.image_token_index)
    config = tf.PaliGemmaConfig(
        vision_config=vision, text_config=text(tf.GemmaConfig, processor, head_dim=16), **options
    )
    return tf.PaliGemmaForConditionalGeneration(config)


CASES: dict[Callable, tuple[Callable, tuple[str, ...]]] = {  # model -> its processor and media
    llava_next: (real.llava_next, ("image",)),
    llava_onevision: (real.llava_onevision, ("image",)),
    gemma3: (real.gemma3, ("image",)),
    idefics3: (real.idefics3, ("image",)),
    internvl: (real.internvl, ("image",)),
    qwen3_vl: (real.qwen3_vl, ("image",)),
    qwen2_5_omni: (real.qwen2_5_omni, ("image", "audio")),
    paligemma: (paligemma_processor, ("image",)),
}


@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept:DeprecationWarning")  # as PaliGemma does
@pytest.mark.filterwarnings("ignore:__array_wrap__ must accept context:DeprecationWarning")  # InternVL on 5.17
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_rows_are_read_as_the_samples_alone(case: Any):
    build, kinds = CASES[case]
    config, processor = build(train_like, {"chatml": CHATML, "user_colon": USER_COLON})
    processor.tokenizer.pad_token = processor.tokenizer.eos_token
    torch.manual_seed(0)
    model, samples = case(config, processor).eval(), mixed(kinds)
    if case is paligemma:  # one turn, with an image
        samples = [samples[0], samples[4]]
    collator = Collator(processor)
    batch = collator(samples)
    with torch.no_grad():
        whole = model(**batch)
        assert whole.loss.isfinite()
        other = {k: -v if v.is_floating_point() else v for k, v in batch.items()}
        assert (model(**other).logits - whole.logits).abs().max() > 1e-2  # media count
        for row, sample in enumerate(samples):
            alone = model(**collator([sample])).logits[0]
            torch.testing.assert_close(whole.logits[row, : len(alone)], alone, rtol=0, atol=1e-4)
