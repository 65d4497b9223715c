from transformers import AutoTokenizer

from moka_peft.analysis.words import group_words
from moka_peft.composite.tiny_avt import FOLDER, tiny_avt_tokenizer


def words(text: str) -> list[str]:
    tokenizer = tiny_avt_tokenizer()
    ids = tokenizer(text, add_special_tokens=False).input_ids
    found = group_words(tokenizer, ids, range(len(ids)))
    assert [p for _, at in found for p in at] == list(range(len(ids)))
    return [word for word, _ in found]


def test_a_word_spelled_by_several_tokens_is_one():
    tokenizer = tiny_avt_tokenizer()
    ids = tokenizer("Which instrument follows?", add_special_tokens=False).input_ids
    found = group_words(tokenizer, ids, range(len(ids)))
    assert [word for word, _ in found] == ["Which", "instrument", "follows", "?"]
    assert len(found[2][1]) > 1


def test_marks_lines_and_spaces_are_shown():
    assert words("one, two\nthree") == ["one", ",", "two", "↵", "three"]
    assert words("don't") == ["don", "'", "t"]
    assert words("one  two")[1] == "␣"


def test_characters_of_wide_scripts_stay_alone():
    assert words("数字") == ["数字"] or words("数字") == ["数", "字"]


def test_tokens_that_are_not_neighbours_are_not_joined():
    tokenizer = tiny_avt_tokenizer()
    ids = tokenizer("xyzzy", add_special_tokens=False).input_ids
    assert [word for word, _ in group_words(tokenizer, ids, [0, 1, 3, 4])] == ["xy", "zy"]


def test_the_saved_tokenizer_reads_alike():
    saved = AutoTokenizer.from_pretrained(FOLDER)
    ids = saved("What is it?", add_special_tokens=False).input_ids
    assert [word for word, _ in group_words(saved, ids, range(len(ids)))] == ["What", "is", "it", "?"]
