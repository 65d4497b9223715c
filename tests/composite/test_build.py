"""Composing from pretrained folders: nothing is lost, and the parts get what they need."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    ASTFeatureExtractor,
    AutoTokenizer,
    CLIPConfig,
    CLIPModel,
    LlamaForCausalLM,
    Wav2Vec2FeatureExtractor,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperModel,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from moka_peft.composite import CompositeForConditionalGeneration, build_composite
from moka_peft.composite.encoders import build_encoder
from moka_peft.composite.tiny_avt import tiny_avt_tokenizer

from .conftest import AUDIO, LAYERS, NO_WORDS, PIXELS, VISION, text_config

QFORMER = {"type": "qformer", "num_queries": 3, "hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 12}


@pytest.fixture
def folders(tmp_path):
    """A language model, a two-tower CLIP and a whole Whisper, each saved beside what prepares its input."""
    torch.manual_seed(0)
    tokenizer = tiny_avt_tokenizer()
    tokenizer.save_pretrained(tmp_path / "text")
    LlamaForCausalLM(text_config(vocab_size=len(tokenizer) - 3)).save_pretrained(tmp_path / "text")
    towers = {"text_config": {**LAYERS, "vocab_size": 9, "eos_token_id": 2}, "vision_config": {**LAYERS, **PIXELS}}
    CLIPModel(CLIPConfig(**towers, projection_dim=8)).save_pretrained(tmp_path / "vision")
    CLIPImageProcessorPil(size={"shortest_edge": 16}, crop_size=16).save_pretrained(tmp_path / "vision")
    sizes = {"d_model": 16, "encoder_layers": 2, "encoder_attention_heads": 2, "encoder_ffn_dim": 24}
    decoder = {"decoder_layers": 1, "decoder_attention_heads": 2, "decoder_ffn_dim": 24}
    whisper = WhisperConfig(**NO_WORDS, **sizes, **decoder, num_mel_bins=8, max_source_positions=50)
    WhisperModel(whisper).save_pretrained(tmp_path / "audio")
    WhisperFeatureExtractor(feature_size=8, chunk_length=1).save_pretrained(tmp_path / "audio")
    return {part: str(tmp_path / part) for part in ("text", "vision", "audio")}


def test_parts_from_folders_keep_their_weights(folders, tmp_path):
    model, processor = build_composite(**folders, vision_feature_layers=[1, 2])
    text = LlamaForCausalLM.from_pretrained(folders["text"])
    vision, audio = CLIPModel.from_pretrained(folders["vision"]), WhisperModel.from_pretrained(folders["audio"])
    for part, source in (
        (model.vision_encoder, vision.vision_model),
        (model.audio_encoder, audio.encoder),
        (model.text_model.model.layers, text.model.layers),
    ):
        theirs = {name.removeprefix("vision_model."): weight for name, weight in source.state_dict().items()}
        ours = {name.removeprefix("vision_model."): weight for name, weight in part.state_dict().items()}
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert (processor.tokens_per_image, processor.tokens_per_segment, processor.segment_seconds) == (4, 50, 1.0)
    assert model.vision_projector[1].in_features == 32
    model.save_pretrained(tmp_path / "all")
    loaded = CompositeForConditionalGeneration.from_pretrained(tmp_path / "all")
    assert all(
        torch.equal(a, b) for a, b in zip(model.state_dict().values(), loaded.state_dict().values(), strict=True)
    )


def test_parts_compute_what_they_did(folders):
    """A part whose config lost its attention would see the future."""
    text, vision = LlamaForCausalLM.from_pretrained(folders["text"]), CLIPModel.from_pretrained(folders["vision"])
    model, _ = build_composite(**folders)
    for part in (model.text_model, model.vision_encoder, model.audio_encoder):
        assert part.config._attn_implementation == "sdpa"
    ids, pixels = torch.tensor([[1, 9, 30, 14, 17, 11]]), torch.randn(2, 3, 16, 16)
    expected = text(input_ids=ids).logits
    assert torch.equal(model(input_ids=ids).logits[..., : expected.shape[-1]], expected)
    assert torch.equal(
        model.vision_encoder(pixels).last_hidden_state, vision.eval().vision_model(pixels).last_hidden_state
    )


def test_half_precision_leaves_positions_exact(folders):
    """Angles of rotary positions are wrong by radians where `inv_freq` is rounded to bfloat16."""
    text = LlamaForCausalLM.from_pretrained(folders["text"], dtype=torch.bfloat16)
    model, _ = build_composite(**folders, dtype="bfloat16")
    assert {weight.dtype for weight in model.parameters()} == {torch.bfloat16}
    ids = torch.arange(900)[None] % 9 + 10
    assert torch.equal(model.text_model.model.rotary_emb.inv_freq, text.model.rotary_emb.inv_freq)
    assert torch.equal(model(input_ids=ids).logits[..., : text.vocab_size], text(input_ids=ids).logits)


@pytest.mark.parametrize("part", ["text", "vision", "audio"])
def test_a_part_that_lacks_weights_is_refused(folders, part):
    """transformers would go on with random ones, as for a Whisper's encoder that was saved by itself."""
    file = Path(folders[part]) / "model.safetensors"
    weights = load_file(file)
    save_file({name.removeprefix("encoder."): weight for name, weight in weights.items() if "norm" not in name}, file)
    with pytest.raises(ValueError, match=f"`{part}` cannot be loaded from .*weights of .* are not there, such as `"):
        build_composite(**folders)


def test_new_rows_of_embeddings_are_the_mean(folders):
    before = LlamaForCausalLM.from_pretrained(folders["text"])
    model, processor = build_composite(**folders)
    assert len(processor.tokenizer) == model.config.text_config.vocab_size
    for ours, theirs in (
        (model.get_input_embeddings().weight, before.get_input_embeddings().weight),
        (model.get_output_embeddings().weight, before.get_output_embeddings().weight),
    ):
        rows = theirs.shape[0]
        assert torch.equal(ours[:rows], theirs)
        torch.testing.assert_close(ours[rows:], theirs.mean(0).expand(ours.shape[0] - rows, -1))


def test_a_composite_from_objects_answers(folders):
    tokenizer = tiny_avt_tokenizer()
    model, processor = build_composite(
        LlamaForCausalLM(text_config(vocab_size=len(tokenizer))),
        audio=build_encoder(AUDIO["ast"]()),
        tokenizer=tokenizer,
        feature_extractor=ASTFeatureExtractor(num_mel_bins=16, max_length=32),
    )
    assert model.config.image_token_id is None and processor.image_processor is None
    assert (processor.tokens_per_segment, processor.segment_seconds) == (8, 0.32)
    batch = processor(text="<audio>many", audios=[torch.zeros(4000).numpy()], return_tensors="pt")
    assert model.generate(**batch, max_new_tokens=2).shape[0] == 1


def test_raw_waveforms_need_a_segment_length(folders):
    parts = {"audio": build_encoder(AUDIO["hubert"]()), "feature_extractor": Wav2Vec2FeatureExtractor()}
    with pytest.raises(ValueError, match="`segment_seconds` is missing"):
        build_composite(folders["text"], **parts)
    model, processor = build_composite(folders["text"], **parts, segment_seconds=0.05)
    assert processor.tokens_per_segment == 38
    assert model.config.audio_token_id == processor.tokenizer.convert_tokens_to_ids("<audio>")


def test_a_model_without_its_processor_is_refused(folders):
    with pytest.raises(ValueError, match="`feature_extractor` is missing: a model was given"):
        build_composite(folders["text"], audio=build_encoder(AUDIO["ast"]()))


@pytest.mark.parametrize("part", ["text", "vision", "audio"])
def test_a_part_that_is_not_there_is_named(folders, tmp_path, part):
    own = {"tokenizer": tiny_avt_tokenizer(), "image_processor": object(), "feature_extractor": object()}
    with pytest.raises(OSError, match=rf"`{part}` cannot be loaded from {tmp_path}/nowhere: .* Give a hub id"):
        build_composite(**{**folders, part: str(tmp_path / "nowhere")}, **own)
    (tmp_path / "nowhere").mkdir()
    (tmp_path / "nowhere" / "config.json").write_text('{"model_type": "spline"}')
    with pytest.raises(ValueError, match=f"`{part}` cannot be loaded from .*spline"):
        build_composite(**{**folders, part: str(tmp_path / "nowhere")}, **own)


@pytest.mark.parametrize("part", ["tokenizer", "image_processor", "feature_extractor"])
def test_what_prepares_a_part_is_named_where_it_is_missing(folders, tmp_path, part):
    with pytest.raises(OSError, match=f"`{part}` cannot be loaded from"):
        build_composite(**folders, **{part: str(tmp_path / "nowhere")})


def test_the_caller_seeds_the_projectors(folders):
    def projectors(seed: int) -> list[torch.Tensor]:
        torch.manual_seed(seed)
        model, _ = build_composite(**folders, audio_projector={"type": "qformer", "num_layers": 1})
        return [*model.vision_projector.parameters(), *model.audio_projector.parameters()]

    first, again, other = projectors(1), projectors(1), projectors(2)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first, other, strict=True))


def test_given_parts_are_used_without_a_copy(folders):
    text = LlamaForCausalLM.from_pretrained(folders["text"])
    vision = build_encoder(VISION["clip"]())
    storages = {weight.data_ptr() for weight in (*text.model.layers.parameters(), *vision.parameters())}
    tokenizer = AutoTokenizer.from_pretrained(folders["text"])
    model, processor = build_composite(
        text, vision, tokenizer=tokenizer, image_processor=folders["vision"], vision_projector=QFORMER
    )
    assert storages <= {weight.data_ptr() for weight in model.parameters()}
    assert processor.tokens_per_image == 3


def test_frames_and_segments_become_queries_each(folders):
    """Ten frames of 32 queries, ten segments of 32: as published."""
    section = {**QFORMER, "num_queries": 32}
    model, processor = build_composite(**folders, vision_projector=section, audio_projector=section)
    frames = [np.full((16, 16, 3), shade, dtype=np.uint8) for shade in range(0, 200, 20)]
    segments = np.random.default_rng(0).standard_normal((10, 16_000)).astype(np.float32)
    batch = processor(text="<video> and <audio>", videos=[frames], audios=[segments], return_tensors="pt")
    counts = [
        (batch["input_ids"] == token).sum() for token in (model.config.video_token_id, model.config.audio_token_id)
    ]
    assert counts == [320, 320]
    together = model.embed_media("video", batch["pixel_values_videos"])
    alone = torch.cat([model.embed_media("video", frame[None]) for frame in batch["pixel_values_videos"]])
    torch.testing.assert_close(together, alone)
    assert model(**batch).logits.isfinite().all()


def test_siglip_has_no_class_token(folders):
    model, processor = build_composite(
        folders["text"], build_encoder(VISION["siglip"]()), image_processor=folders["vision"]
    )
    assert processor.tokens_per_image == 4  # 2 x 2 patches, none left out
