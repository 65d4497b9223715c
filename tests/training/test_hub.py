"""`push_to_hub` against a hub that is made up: asked before training, served after it, and failing at both ends."""

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from moka_peft.cli import call
from moka_peft.training import load_recipe, train

pytestmark = pytest.mark.usefixtures("without_plots")


class FakeHub:
    """Stands in for HfApi; keeps what it was sent."""

    uploads: list[dict] = []
    broken = ""

    def whoami(self):
        if self.broken == "token":
            raise OSError("Token is required.\nMore about tokens ...")
        return {"name": "user", "orgs": [{"name": "group"}]}

    def create_repo(self, repository, exist_ok):
        if self.broken == "upload":
            raise ConnectionError("the line is dead")
        return f"https://hub/{repository}"

    def upload_folder(self, *, repo_id, folder_path, ignore_patterns, commit_message):
        left_out = {pattern.split("/")[0] for pattern in ignore_patterns}
        files = {path.relative_to(folder_path).parts[0] for path in Path(folder_path).rglob("*") if path.is_file()}
        self.uploads.append({"repo": repo_id, "files": files - left_out})


@pytest.fixture
def hub(monkeypatch):
    monkeypatch.setattr("moka_peft.training.hub.HfApi", FakeHub)
    monkeypatch.setattr(FakeHub, "uploads", [])
    return FakeHub


@pytest.fixture
def run(write_yaml):
    """run(*settings) trains one step and pushes to user/adapter; gives what was shown."""

    def start(*settings: str) -> str:
        console = Console(file=io.StringIO(), width=300)
        base = ["training.steps=1", "data.eval=null", "push_to_hub=user/adapter"]
        train(load_recipe(write_yaml(), [*base, *settings]), console)
        return console.file.getvalue()

    return start


def test_the_adapter_is_uploaded_without_checkpoints(hub, run):
    assert "uploaded to https://hub/user/adapter" in run()
    [upload] = hub.uploads
    assert upload["repo"] == "user/adapter"
    assert {"README.md", "adapter_config.json", "adapter_model.safetensors", "recipe.yaml"} <= upload["files"]
    assert "checkpoints" not in upload["files"]


@pytest.mark.parametrize(
    ("broken", "repository", "message"),
    [
        (
            "token",
            "user/adapter",
            r"cannot reach the hub as a known user: Token is required\. Log in with `hf auth login`",
        ),
        ("", "stranger/adapter", "may not write to stranger/adapter: expected a repository of group, user"),
    ],
)
def test_a_hub_that_would_refuse_ends_the_run_before_it_begins(
    hub, run, monkeypatch, tmp_path, broken, repository, message
):
    monkeypatch.setattr(hub, "broken", broken)
    monkeypatch.setattr("moka_peft.training.run.load_model", lambda **_: pytest.fail("a model was loaded"))
    with pytest.raises(OSError, match=message):
        run(f"push_to_hub={repository}")
    assert not (tmp_path / "out").exists()


def test_offline_is_told_before_training(write_yaml, monkeypatch):
    monkeypatch.setattr("moka_peft.training.run.load_model", lambda **_: pytest.fail("a model was loaded"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(OSError, match="`push_to_hub` cannot reach the hub"):
        train(load_recipe(write_yaml(), ["push_to_hub=user/adapter"]))


def test_a_failed_upload_loses_nothing_and_can_be_made_up_for(hub, run, monkeypatch, tmp_path):
    monkeypatch.setattr(hub, "broken", "upload")
    with pytest.raises(OSError, match=r"the line is dead\. Nothing is lost.* hf upload user/adapter .*out --exclude"):
        run()
    assert json.loads((tmp_path / "out/metrics.json").read_text())["steps"] == 1
    monkeypatch.setattr(hub, "broken", "")
    shown = run("resume=true")
    assert "nothing to do" in shown and "uploaded to" in shown
    assert len(hub.uploads) == 1


def test_the_command_has_a_flag(hub, write_yaml, capsys):
    assert call(["train", str(write_yaml("steps: 6", "steps: 1")), "data.eval=null", "--push-to-hub", "user/x"]) == 0
    assert "uploaded to https://hub/user/x" in capsys.readouterr().out
    assert call(["train", str(write_yaml()), "--push-to-hub", "nonsense"]) == 2
    assert "moka: command line: push_to_hub=nonsense: `push_to_hub` is wrong" in capsys.readouterr().err
