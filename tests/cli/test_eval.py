"""`moka eval`: from a target's name to records, summaries and a table; what is wrong is said before a model opens."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from moka_peft.cli import call
from moka_peft.cli.chosen_tasks import Choice, settings_of
from moka_peft.evaluation import BENCHMARKS, read_records
from moka_peft.evaluation.generated import write_benchmark
from moka_peft.evaluation.target import PLACE_BYTES, Target, digest, find_target, sampled_digest

NAMES = [*BENCHMARKS]
SHORT = ["--max-new-tokens", "3", "--batch-size", "4"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of made-up benchmarks."""
    folder = tmp_path_factory.mktemp("data")
    for name in ("pope", "mmau"):
        write_benchmark(name, folder / name, samples=3)
    return folder


@pytest.fixture
def closed(monkeypatch) -> None:
    """No model can be opened."""
    monkeypatch.setattr(Target, "open", lambda self: pytest.fail("a model was opened"))


def changed(recipe: Path, place: Path, **evaluation) -> Path:
    """A copy of a recipe with more in its section `evaluation`."""
    data = yaml.safe_load(recipe.read_text())
    data["evaluation"] |= evaluation
    place.write_text(yaml.safe_dump(data))
    return place


def test_a_recipe_and_its_benchmarks(recipe, adapter, data, tmp_path, capsys):
    sections = {"pope": {"folder": str(data / "pope"), "split": "popular", "max_new_tokens": 3}, "mmau": None}
    path = changed(recipe, tmp_path / "recipe.yaml", benchmarks=sections, batch_size=3)
    assert call(["eval", str(path), "--data", str(data), "--out", str(tmp_path / "out")]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert f"{path}, records and summaries in {tmp_path}/out:" in shown and "pope*" in shown and "mmau*" in shown
    settings = json.loads((tmp_path / "out/pope/settings.json").read_text())
    assert (settings["options"], settings["batch_size"], settings["max_new_tokens"]) == ({"split": "popular"}, 3, 3)
    assert settings["model"]["adapter_sha256"] == digest(adapter)
    assert settings["model"]["base"] == str(recipe.parent / "model")
    records = read_records(tmp_path / "out/mmau/records.jsonl", BENCHMARKS["mmau"].needs)
    assert len(records) == len(BENCHMARKS["mmau"].questions(data / "mmau")) > 2


def test_all_benchmarks_at_the_size_of_a_laptop(recipe, tmp_path, capsys):
    path = changed(recipe, tmp_path / "recipe.yaml", benchmarks=dict.fromkeys(NAMES))
    text = path.read_text().replace(str(recipe.parent / "out"), str(tmp_path / "runs/all"))
    path.write_text(text.replace(str(recipe.parent / "model"), "tiny-avt"))
    assert call(["train", str(path), "--tiny"]) == 0
    assert call(["eval", str(path), "--tiny", "--json"]) == 0
    shown = capsys.readouterr()
    assert "no result means anything" in shown.err
    [found] = json.loads(shown.out.splitlines()[-1])["targets"].values()
    assert found["folder"] == str(tmp_path / "runs/tiny/all/benchmarks") and [*found["benchmarks"]] == NAMES
    for name, summary in found["benchmarks"].items():
        for protocol in ("strict", "authors"):
            assert summary[protocol]["benchmark"] == name and summary[protocol]["records"] == summary["records"] > 0
        assert summary["settings"]["max_new_tokens"] == 4
        assert call(["score", name, found["folder"], "--json"]) == 0
        scored = json.loads(capsys.readouterr().out)
        assert scored["score"] == summary["strict"]["score"] and scored["groups"] == summary["strict"]["groups"]


def test_an_adapter_beside_its_base_model(recipe, adapter, data, tmp_path, capsys, monkeypatch):
    base, opened, open_it = str(recipe.parent / "model"), [], Target.open
    monkeypatch.setattr(Target, "open", lambda self: opened.append(self.name) or open_it(self))
    words = ["eval", base, str(adapter), "--benchmarks", "pope,mmau", "--data", str(data), *SHORT]
    assert call([*words, "--limit", "2", "--out", str(tmp_path), "--compare", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert opened == [base, str(adapter)]  # once for both benchmarks
    assert [*found["targets"]] == [base, str(adapter)] and [*found["comparisons"]] == ["pope", "mmau"]
    assert found["targets"][base]["folder"] == str(tmp_path / "model")
    assert found["comparisons"]["pope"]["authors"]["baseline"] == base
    summary = found["targets"][str(adapter)]["benchmarks"]["pope"]
    assert summary["strict"]["partial_because"] == "the first 2 of 3 questions"
    assert summary["settings"]["model"]["adapter_sha256"] == digest(adapter)
    assert found["targets"][base]["benchmarks"]["pope"]["settings"]["model"] == {
        "base": base,
        "base_sha256": sampled_digest(recipe.parent / "model"),
        "dtype": "auto",
    }

    assert call([*words, "--limit", "2", "--out", str(tmp_path), "--compare"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert opened == [base, str(adapter)] and f"mmau, strict: against {base}" in shown  # nothing is run again


def test_a_moved_adapter_is_the_same_and_an_other_one_is_not(adapter, data, tmp_path, capsys, monkeypatch):
    words = ["--benchmarks", "pope", "--data", str(data), *SHORT]
    first, second = tmp_path / "first", tmp_path / "second"
    shutil.copytree(adapter, first)
    assert call(["eval", str(first), *words]) == 0
    first.rename(second)
    monkeypatch.setattr(Target, "open", lambda self: pytest.fail("a model was opened"))
    config, weights = second / "adapter_config.json", second / "adapter_model.safetensors"
    data = json.loads(config.read_text())
    config.write_text(json.dumps(data | {"base_model_name_or_path": "elsewhere"}))
    assert call(["eval", str(second), *words]) == 0
    for path, other in ((config, json.dumps(data | {"lora_alpha": 99}).encode()), (weights, b"other weights")):
        before = path.read_bytes()
        path.write_bytes(other)
        capsys.readouterr()
        assert call(["eval", str(second), *words]) == 1
        assert "holds records of other settings (model.adapter_sha256: " in capsys.readouterr().err
        path.write_bytes(before)


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ("tiny-avt", 2, "--benchmarks: are missing: tiny-avt has no recipe with `evaluation.benchmarks`. Name "),
        ("tiny-avt --benchmarks poppe", 2, "--benchmarks: knows no 'poppe': expected some of "),
        ("tiny-avt --benchmarks pope --set mme.folder=x", 2, "--set: mme is not run: expected some of pope."),
        ("tiny-avt --benchmarks pope --set pope.foldr=x", 2, "Did you mean `evaluation.benchmarks.pope.folder`?"),
        ("tiny-avt --benchmarks pope --set pope.split=x", 2, "pope: `split` of POPE is wrong: expected one of all, "),
        ("tiny-avt --benchmarks pope --set pope.task=x", 2, "pope: `task` of POPE is wrong: expected some of split"),
        ("tiny-avt --benchmarks pope --data no/where", 1, "the annotation file of `pope` not found: expected "),
        ("tiny-avt --benchmarks pope --limit 0", 2, "--limit"),
        ("tiny-avt tiny-avt --benchmarks pope", 2, "targets: tiny-avt is given twice."),
        ("tiny-avt --benchmarks pope --compare", 2, "--compare: needs several targets."),
        ("runs/never/was --benchmarks pope", 1, "`target` runs/never/was not found: expected a recipe (.yaml), "),
        ("recipes/never.yaml --benchmarks pope", 2, "recipes/never.yaml: the recipe cannot be read: "),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_before_a_model_opens(closed, data, tmp_path, capsys, words, code, message):
    given = words.split() + (["--data", str(data)] if "--data" not in words else [])
    assert call(["eval", *given, "--out", str(tmp_path / "out")]) == code
    shown = capsys.readouterr().err.replace("Invalid value for ", "")
    assert message in shown and shown.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_media_that_a_model_does_not_take_are_said_before_it_answers(data, tmp_path, capsys, monkeypatch):
    model, processor, collator = find_target("tiny-avt").open()
    del collator.placeholders["audio"]
    monkeypatch.setattr(Target, "open", lambda self: (model, processor, collator))
    words = ["--benchmarks", "pope, mmau", "--data", str(data), "--out", str(tmp_path / "out")]
    assert call(["eval", "tiny-avt", *words, *SHORT]) == 1
    assert "1 audio attached, but the processor takes image" in capsys.readouterr().err
    assert not (tmp_path / "out/pope/records.jsonl").exists()


def test_made_up_records_keep_out_of_the_place_of_real_ones(adapter, tmp_path):
    mine = shutil.copytree(adapter, tmp_path / "mine")
    assert call(["eval", str(mine), "--tiny", "--benchmarks", "pope", *SHORT]) == 0
    assert (mine / "tiny-benchmarks/pope/summary.json").is_file() and not (mine / "benchmarks").exists()


def test_a_folder_that_cannot_be_is_said_before_a_model_opens(closed, data, tmp_path, capsys):
    (tmp_path / "file").touch()
    words = ["--benchmarks", "pope", "--data", str(data), "--out", str(tmp_path / "file")]
    assert call(["eval", "tiny-avt", *words]) == 1
    assert f"`out` cannot be written: {tmp_path}/file/pope: Not a directory." in capsys.readouterr().err


def test_what_cannot_be_compared_is_said_before_a_model_opens(closed, adapter, data, tmp_path, capsys):
    one, two = (shutil.copytree(adapter, tmp_path / name) for name in ("one", "two"))
    questions = shutil.copytree(data / "pope", tmp_path / "pope") / "coco_pope_random.json"
    questions.write_text(questions.read_text().replace("bar", "cup"))
    for folder, benchmarks in ((one, {"pope": {"folder": str(tmp_path / "pope")}}), (two, {"mmau": {}})):
        changed(folder / "recipe.yaml", folder / "recipe.yaml", benchmarks=benchmarks)
    words = ["eval", str(one), str(two), "--compare", "--data", str(data), "--out", str(tmp_path / "out")]
    assert call([*words, "--benchmarks", "pope"]) == 1
    assert f"`question` of random-1 is not that of {one}: " in capsys.readouterr().err
    assert call(words) == 2
    assert "--compare: has nothing to compare: " in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_prompt_that_does_not_fit_is_said_before_a_model_opens(closed, data, capsys):
    words = ["tiny-avt", "--benchmarks", "pope", "--data", str(data)]
    assert call(["eval", *words, "--set", "pope.prompt='<image> <image> {question}'"]) == 1
    assert "coco_pope_random.json, row 1, " in capsys.readouterr().err


@pytest.mark.parametrize("size", [10, 3 * PLACE_BYTES, 200 * PLACE_BYTES])
def test_other_files_in_the_folder_of_a_base_model_are_another_model(recipe, tmp_path, size):
    weights = tmp_path / "model.safetensors"
    shutil.copy(recipe.parent / "model/config.json", tmp_path)
    weights.write_bytes(bytes(size))
    before = find_target(str(tmp_path)).identity
    assert find_target(str(tmp_path)).identity == before
    for other in (bytes(size + 1), bytes(size // 2) + b"\1" * (size - size // 2)):
        weights.write_bytes(other)
        assert find_target(str(tmp_path)).identity != before
    weights.write_bytes(bytes(size))
    (tmp_path / "generation_config.json").write_text('{"repetition_penalty": 1.05}')
    assert find_target(str(tmp_path)).identity != before


def test_several_targets_have_a_place_each(closed, adapter, data, tmp_path, capsys):
    words = ["--benchmarks", "pope", "--data", str(data), "--out", str(tmp_path / "out")]
    assert call(["eval", str(adapter), f"{adapter}/", *words]) == 2
    assert "--out: has one place for several targets, " in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_made_up_files_take_the_place_of_those_that_an_adapter_was_evaluated_on(adapter, data, tmp_path):
    folder = shutil.copytree(adapter, tmp_path / "runs/one")
    changed(folder / "recipe.yaml", folder / "recipe.yaml", benchmarks={"pope": {"folder": str(data / "pope")}})
    for words, tiny, place in (([], False, data), ([], True, tmp_path), ([f"pope.folder={data}/pope"], True, data)):
        [task] = Choice([], settings_of(words), tiny=tiny).tasks(find_target(str(folder)))
        assert all(question.where.startswith(str(place)) for question in task.questions)


def test_what_a_name_stands_for(recipe, adapter, tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match=r"is not trained: expected a finished run in .*: moka train .*yaml$"):
        find_target(str(changed_output(recipe, tmp_path / "recipe.yaml", tmp_path / "none")))
    with pytest.raises(FileNotFoundError, match="holds no model: expected adapter_config.json"):
        find_target(str(tmp_path))
    found = {name: find_target(name) for name in ("tiny-avt", "Qwen/Qwen2.5-VL-3B-Instruct", str(adapter), str(recipe))}
    assert [str(one.out) for one in found.values()] == [
        "runs/benchmarks/tiny-avt",
        "runs/benchmarks/Qwen--Qwen2.5-VL-3B-Instruct",
        str(adapter / "benchmarks"),
        str(adapter / "benchmarks"),
    ]
    assert [one.label for one in found.values()] == ["tiny-avt", "Qwen--Qwen2.5-VL-3B-Instruct", "out", "recipe"]
    assert [one.base["dtype"] for one in found.values()] == ["float32", "auto", "float32", "float32"]
    assert [one.batch_size for one in found.values()] == [8, 8, 64, 64]
    bare = tmp_path / "bare"
    bare.mkdir()
    shutil.copy(adapter / "adapter_config.json", bare)
    assert find_target(str(bare)).evaluation is None


def changed_output(recipe: Path, place: Path, out: Path) -> Path:
    place.write_text(recipe.read_text().replace(str(recipe.parent / "out"), str(out)))
    return place


@pytest.mark.slow
def test_two_processes_speak_with_one_voice(data, tmp_path):
    def launch(*words: str) -> subprocess.CompletedProcess[str]:
        command = [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--nproc-per-node",
            "2",
            "-m",
            "moka_peft.cli",
            "eval",
        ]
        return subprocess.run([*command, "tiny-avt", "--benchmarks", "pope", *words], capture_output=True, text=True)

    done = launch("--data", str(data), "--out", str(tmp_path), "--batch-size", "1")
    assert done.returncode == 0 and done.stdout.count("records and summaries in") == 1
    assert len((tmp_path / "pope/records.jsonl").read_text().splitlines()) == 3
    failed = launch("--data", "no/where", "--out", str(tmp_path / "other"))
    assert failed.returncode and failed.stderr.count("moka: the annotation file of `pope` not found") == 1
