import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from moka_peft.training import load_recipe, train
from moka_peft.training.folder import METRICS, check_space, claim_folder, write_json
from moka_peft.training.recipe_file import write_recipe


@pytest.fixture
def finished(write_yaml, tmp_path: Path) -> Path:
    """The folder of a finished run of `write_yaml()`."""
    out = tmp_path / "out"
    out.mkdir()
    write_recipe(load_recipe(write_yaml()), out / "recipe.yaml")
    write_json(out / METRICS, {"steps": 6})
    return out


def test_a_folder_that_cannot_be_made_is_refused_before_a_model_loads(write_yaml, tmp_path: Path, monkeypatch):
    monkeypatch.setattr("moka_peft.training.run.load_model", lambda **_: pytest.fail("a model was loaded"))
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="`output_dir` cannot be written: .*file/out: Not a directory"):
        train(load_recipe(write_yaml(), [f"output_dir={tmp_path}/file/out"]))


def test_a_folder_that_takes_no_files_is_refused(tmp_path: Path, monkeypatch):
    def refuse(dir: Path):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    with pytest.raises(OSError, match="cannot be written: .*: Read-only file system"):
        claim_folder(tmp_path, {}, resume=False, overwrite=False)


def test_a_full_disk_is_refused_before_training(write_yaml, monkeypatch):
    monkeypatch.setattr("moka_peft.training.run.build_trainer", lambda *_, **__: pytest.fail("training began"))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10**6))
    with pytest.raises(OSError, match=r"too little space: expected \d+ MB free for 3 checkpoints .* got 1 MB"):
        train(load_recipe(write_yaml()))


def test_enough_space_is_enough(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=64 * 10**6 + 4 * 10 * 1000))
    check_space(tmp_path, trainable_parameters=1000, checkpoints=2)


def test_an_earlier_run_is_not_written_over(finished: Path, write_yaml):
    with pytest.raises(ValueError, match="holds a finished run: .*--resume.*--overwrite"):
        train(load_recipe(write_yaml()))


def test_overwrite_removes_the_earlier_run(finished: Path):
    claim_folder(finished, {}, resume=False, overwrite=True)
    assert list(finished.iterdir()) == []


def test_a_finished_run_is_not_run_again(finished: Path, write_yaml):
    assert train(load_recipe(write_yaml(), ["resume=true"])) == {"steps": 6}


def test_resuming_another_recipe_is_refused(finished: Path, write_yaml):
    with pytest.raises(ValueError, match=r"it differs \(adapter.r: 2 -> 3, seed: 0 -> 1\)"):
        train(load_recipe(write_yaml(), ["resume=true", "adapter.r=3", "seed=1"]))


def test_a_recipe_of_before_a_key_was_there_is_the_same_run(finished: Path, write_yaml):
    written = (finished / "recipe.yaml").read_text()
    assert "  before: true\n" in written
    (finished / "recipe.yaml").write_text(written.replace("  before: true\n", ""))
    assert train(load_recipe(write_yaml(), ["resume=true"])) == {"steps": 6}
    with pytest.raises(ValueError, match=r"it differs \(evaluation.before: True -> False\)"):
        train(load_recipe(write_yaml(), ["resume=true", "evaluation.before=false"]))


def test_files_of_something_else_stay(tmp_path: Path):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(ValueError, match="holds files of something else .thesis.tex, 1 in all"):
        claim_folder(tmp_path, {}, resume=False, overwrite=True)
    assert (tmp_path / "thesis.tex").exists()


def test_a_recipe_torn_by_a_kill_is_no_foreign_file(tmp_path: Path):
    (tmp_path / "recipe.yaml.partial").write_text("mod")
    claim_folder(tmp_path, {}, resume=True, overwrite=False)
