import json
from importlib import metadata
from pathlib import Path

import pytest

from moka_peft.cli import VERBS, call, main


def test_help_lists_every_verb(capsys):
    assert call(["--help"]) == 0
    shown = capsys.readouterr().out
    for verb, (_, summary) in VERBS.items():
        assert f"  {verb} " in shown
        assert summary in " ".join(shown.split())  # long ones break over lines


@pytest.mark.parametrize("verb", VERBS)
def test_each_verb_explains_itself(verb: str, capsys):
    assert call([verb, "--help"]) == 0
    assert f"Usage: moka {verb}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trein"], "moka: No such command 'trein'"),
        (["train"], "moka: Missing argument 'recipe'."),
        (["env", "--colour"], "moka: No such option: --colour"),
        (["generate", "what?"], "moka: Missing option '--adapter'."),
        (["train", "gone.yaml"], "moka: gone.yaml: the recipe cannot be read: No such file or directory."),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(arguments: list[str], message: str, capsys):
    assert call(arguments) == 2
    shown = capsys.readouterr()
    assert shown.err.startswith(message)
    assert shown.err.count("\n") == 1
    assert shown.out == ""


def test_a_traceback_comes_only_with_debug(tmp_path: Path, capsys):
    for arguments, expected in ((["generate", "?"], False), (["generate", "?", "--debug"], True)):
        with pytest.raises(SystemExit) as exit:
            main([*arguments, "--adapter", str(tmp_path)])
        assert exit.value.code == 1
        shown = capsys.readouterr().err
        assert ("Traceback" in shown) is expected
        assert "moka: `adapter` is no adapter folder" in shown


def test_env_is_json_on_request(capsys):
    assert call(["env", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["torch"].startswith("2.")
    assert facts["devices"]
    assert call(["env"]) == 0
    assert f"torch:        {facts['torch']}" in capsys.readouterr().out


def test_the_command_is_installed():
    [command] = metadata.entry_points(group="console_scripts", name="moka")
    assert command.load() is main
