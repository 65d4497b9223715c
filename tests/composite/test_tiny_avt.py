"""The shape of tiny-avt, and the files in the package where they are built."""

import pytest

from moka_peft.composite import CompositeForConditionalGeneration, fit_processor, tiny_avt_config, tiny_avt_processor
from moka_peft.composite.tiny_avt import ANSWER_WORDS, FOLDER, WORDS, load_tiny_avt, tiny_avt_tokenizer


def test_the_processor_fits_the_model():
    model, processor = CompositeForConditionalGeneration(tiny_avt_config()), tiny_avt_processor()
    declared = (processor.tokens_per_image, processor.tokens_per_segment, processor.segment_seconds)
    fitted = fit_processor(tiny_avt_processor(), model)
    assert declared == (fitted.tokens_per_image, fitted.tokens_per_segment, fitted.segment_seconds) == (16, 25, 2)
    assert model.num_parameters() * 4 < 3_900_000  # bytes in float32: the package carries them
    assert model.config.text_config.vocab_size == len(processor.tokenizer) <= 600


def test_any_text_can_be_written():
    tokenizer = tiny_avt_tokenizer()
    for text in ("naïve 漢字 12 <|user|> x\n\t", "<image>", "HOW many?"):
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_known_words_are_one_token():
    tokenizer = tiny_avt_tokenizer()
    assert all(len(tokenizer.tokenize(" " + word)) == 1 for word in (WORDS + ANSWER_WORDS).split())
    assert all(len(tokenizer.tokenize(word)) == 1 for word in ANSWER_WORDS.split())


def test_the_package_holds_what_the_code_describes():
    if not (FOLDER / "model.safetensors").is_file():
        with pytest.raises(FileNotFoundError, match="build_tiny_avt.py"):
            load_tiny_avt()
        pytest.skip("tiny-avt is not built")
    model, processor = load_tiny_avt()
    assert model.config.to_diff_dict()["text_config"]["vocab_size"] == len(processor.tokenizer)
    assert processor.tokenizer.get_vocab() == tiny_avt_tokenizer().get_vocab()
    assert processor.to_dict() == tiny_avt_processor().to_dict()
    assert processor.chat_template == tiny_avt_processor().chat_template
    assert (FOLDER / "model.safetensors").stat().st_size <= 4_000_000
