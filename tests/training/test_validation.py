import json
from dataclasses import replace

import pytest

from moka_peft.composite import tiny_avt_processor
from moka_peft.data import AvDigits, load_samples
from moka_peft.training import inspect_samples


@pytest.fixture(scope="module")
def processor():
    return tiny_avt_processor()


def test_counts_tokens_by_what_they_are(processor):
    findings = inspect_samples(processor, AvDigits("train", 4))
    assert findings.samples == 4
    assert findings.problems == []
    assert findings.tokens["image"] == 4 * processor.tokens_per_image
    assert findings.tokens["audio"] == 4 * processor.tokens_per_segment
    assert findings.tokens["answer"] >= 4 * 2  # a word and its end
    assert sum(findings.tokens.values()) == sum(findings.lengths)


def test_each_bad_sample_is_one_problem(processor, tmp_path):
    sample = AvDigits("train", 1)[0]
    question = [{"type": "image", "image": str(tmp_path / "gone.png")}, {"type": "text", "text": "What?"}]
    missing = replace(sample, id="b", messages=[{"role": "user", "content": question}, sample.messages[1]])
    silent = replace(sample, id="c", messages=sample.messages[:1])
    findings = inspect_samples(processor, [sample, missing, silent])
    assert len(findings.lengths) == 1
    assert [problem.split(":")[0] for problem in findings.problems] == ["sample 1 (b)", "sample 2 (c)"]
    assert "gone.png" in findings.problems[0]


def test_reads_a_file_of_messages(processor, tmp_path):
    row = {"messages": [{"role": "user", "content": "Is it one?"}, {"role": "assistant", "content": "yes"}]}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row))
    findings = inspect_samples(processor, load_samples(tmp_path / "rows.jsonl"))
    assert findings.tokens["image"] == 0
    assert findings.samples == 1
