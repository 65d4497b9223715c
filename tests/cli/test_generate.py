import shutil
from pathlib import Path

import pytest
import yaml

from moka_peft.cli import call
from moka_peft.data import Collator, MediaOptions


def ask(adapter: Path, *files: str) -> int:
    return call(["generate", "--adapter", str(adapter), *files, "--max-new-tokens", "2", "Is it one?"])


def test_answers_on_files_of_the_users_own(adapter, image, audio, capsys):
    assert ask(adapter, "--image", str(image), "--audio", str(audio)) == 0
    assert capsys.readouterr().out.count("\n") == 1


def test_answers_without_media(adapter, capsys):
    assert ask(adapter) == 0


def test_media_are_decoded_as_in_training(adapter, audio, tmp_path, monkeypatch, capsys):
    folder, made, collate = shutil.copytree(adapter, tmp_path / "adapter"), [], Collator.collate_prompts
    recipe = yaml.safe_load((folder / "recipe.yaml").read_text())
    recipe["data"]["media"] = {"video_frames": 3, "audio_segments": 2}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))

    def collated(self, samples):
        made.append((self.media, collate(self, samples)))
        return made[-1][1]

    monkeypatch.setattr(Collator, "collate_prompts", collated)
    assert ask(folder, "--audio", str(audio)) == 0
    ((media, batch),) = made
    assert media == MediaOptions(video_frames=3, audio_segments=2) and len(batch["input_features"]) == 2


def test_a_missing_file_is_named(adapter, tmp_path, capsys):
    assert ask(adapter, "--image", str(tmp_path / "gone.png")) == 1
    assert capsys.readouterr().err.startswith(f"moka: image `{tmp_path}/gone.png` not found.")


def test_an_unreadable_image_is_named(adapter, tmp_path, capsys):
    (tmp_path / "text.png").write_text("no picture")
    assert ask(adapter, "--image", str(tmp_path / "text.png")) == 1
    shown = capsys.readouterr().err
    assert f"image `{tmp_path}/text.png` cannot be read" in shown
    assert shown.count("\n") == 1


def test_a_truncated_recording_is_named(adapter, audio, capsys):
    audio.write_bytes(audio.read_bytes()[:-1000])
    assert ask(adapter, "--audio", str(audio)) == 1
    assert f"audio `{audio}` is truncated" in capsys.readouterr().err


@pytest.mark.parametrize("count", ["0", "many"])
def test_a_wrong_length_is_wrong_usage(adapter, count: str, capsys):
    assert call(["generate", "--adapter", str(adapter), "--max-new-tokens", count, "?"]) == 2
    assert "--max-new-tokens" in capsys.readouterr().err
