import io

import pytest

from moka_peft.cli import call


@pytest.fixture
def chat(adapter, monkeypatch):
    """chat(lines) types lines into `moka chat`; gives the exit code."""

    def start(*lines: str) -> int:
        monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(lines) + "\n"))
        return call(["chat", "--adapter", str(adapter), "--max-new-tokens", "2"])

    return start


def test_several_turns_with_media(chat, image, audio, capsys, monkeypatch):
    from moka_peft.training import Conversation

    turns = []
    monkeypatch.setattr(
        Conversation, "ask", lambda self, text: turns.append((text, len(self.attached))) or f"to {text}"
    )
    assert chat(f"/image {image}", f"/audio {audio}", "first", "", "/reset", "second", "/exit", "never") == 0
    assert turns == [("first", 2), ("second", 0)]
    shown = capsys.readouterr().out
    assert f"attached {image}" in shown
    assert shown.index("to first") < shown.index("forgotten") < shown.index("to second")


def test_the_model_sees_the_turns_before(chat, image, capsys, monkeypatch):
    from moka_peft.training import conversation

    seen = []
    generate = conversation.generate_answers
    monkeypatch.setattr(
        conversation,
        "generate_answers",
        lambda m, p, c, samples, **k: seen.append(samples[0]) or generate(m, p, c, samples, **k),
    )
    assert chat(f"/image {image}", "What is it?", "And now?") == 0
    roles = [[message["role"] for message in sample.messages] for sample in seen]
    assert roles == [["user", "assistant"], ["user", "assistant", "user", "assistant"]]
    assert [part["type"] for part in seen[1].messages[0]["content"]] == ["image", "text"]


def test_a_bad_file_does_not_end_the_conversation(chat, tmp_path, capsys):
    (tmp_path / "text.png").write_text("no picture")
    assert chat("/image nowhere.png", f"/image {tmp_path}/text.png", "?", "Still there?", "/nothing") == 0
    shown = capsys.readouterr()
    assert "image `nowhere.png` not found" in shown.err
    assert "text.png` cannot be read" in shown.err
    assert shown.err.count("\n") == 2
    assert "no such command: /nothing" in shown.out
