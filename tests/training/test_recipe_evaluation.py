"""The section `evaluation.benchmarks`: what it may hold, and that training does not see it."""

import pytest
import yaml

from moka_peft.training import RecipeError, load_recipe, train
from moka_peft.training.folder import METRICS, claim_folder, write_json
from moka_peft.training.recipe_file import read_benchmarks, write_recipe
from moka_peft.training.tiny import shrink_recipe

BENCHMARKS = "evaluation.benchmarks={pope: , mmau: {task: speech, prompt: 'Listen: {question}', max_new_tokens: 32}}"


def test_what_a_recipe_names(write_yaml):
    path = write_yaml()
    assert load_recipe(path).evaluation.benchmarks is None
    recipe = load_recipe(path, [BENCHMARKS])
    chosen = recipe.evaluation.benchmarks.chosen()  # pyright: ignore[reportOptionalMemberAccess]
    assert [*chosen] == ["pope", "mmau"]
    assert chosen["pope"].model_dump(exclude_none=True) == {}
    assert chosen["mmau"].model_dump(exclude_none=True) == {
        "task": "speech", "prompt": "Listen: {question}", "max_new_tokens": 32,
    }  # fmt: skip
    write_recipe(recipe, path)
    assert load_recipe(path).evaluation == recipe.evaluation


@pytest.mark.parametrize(
    ("setting", "problem"),
    [
        ("mne={}", "`evaluation.benchmarks.mne` is not a recipe key. Did you mean `evaluation.benchmarks.mme`?"),
        ("mme.foldr=x", "`{}` is not a recipe key. Did you mean `evaluation.benchmarks.mme.folder`?"),
        ("mme.max_new_tokens=0", "`{}` is wrong: expected greater than 0, got 0."),
        ("mme=3", "`{}` is wrong: expected a section of keys, got 3."),
        ("mme.prompt=What is it?", "`{}` is wrong: expected a text with {{question}}, and at most {{choices}} beside "
         "it, got 'What is it?'."),
        ("mme.prompt='{question} {hint}'", "`{}` is wrong: expected a text with {{question}}, and at most {{choices}} "
         "beside it, got '{{question}} {{hint}}'."),
        ("mme.prompt='{question:d}'", "`{}` is wrong: expected a text with {{question}}, and at most {{choices}} "
         "beside it, got '{{question:d}}'."),
        ("mme.prompt='{question} {choices!z}'", "`{}` is wrong: expected a text with {{question}}, and at most "
         "{{choices}} beside it, got '{{question}} {{choices!z}}'."),
        ("mme.prompt='{question'", "`{}` is wrong: expected a text with {{question}}, got '{{question' (expected '}}' "
         "before end of string)."),
    ],
)  # fmt: skip
def test_mistakes_have_their_place(write_yaml, setting, problem):
    key = f"evaluation.benchmarks.{setting.partition('=')[0]}"
    expected = [f"command line: evaluation.benchmarks.{setting}: {problem.format(key)}"]
    for read in (
        lambda: load_recipe(write_yaml(), [f"evaluation.benchmarks.{setting}"]),
        lambda: read_benchmarks([setting]),
    ):
        with pytest.raises(RecipeError) as caught:
            read()
        assert caught.value.problems == expected


def test_words_of_the_command_line(write_yaml):
    found = read_benchmarks(["mme.folder=data/a b", "mme.max_new_tokens=8", "air_bench.task=x"])
    assert {name: asked.model_dump(exclude_unset=True) for name, asked in found.items()} == {
        "mme": {"folder": "data/a b", "max_new_tokens": 8},
        "air_bench": {"task": "x"},
    }
    with pytest.raises(RecipeError, match="`evaluation.benchmarks.mme.folder` is no setting"):
        read_benchmarks(["mme.folder"])


def test_benchmarks_leave_a_run_what_it_is(write_yaml, tmp_path, capsys):
    plain, named = load_recipe(write_yaml()), load_recipe(write_yaml(), [BENCHMARKS])
    assert plain.settings() == named.settings()
    out = tmp_path / "out"
    for began, now in ((plain, named), (named, plain)):
        out.mkdir(exist_ok=True)
        write_recipe(began, out / "recipe.yaml")
        claim_folder(out, now.settings(), resume=True, overwrite=False)
    write_json(out / METRICS, {"steps": 6})
    assert train(load_recipe(write_yaml(), [BENCHMARKS, "resume=true"])) == {"steps": 6}
    with pytest.raises(ValueError, match=r"differs \(evaluation.batch_size: 6 -> 3\)"):
        train(load_recipe(write_yaml(), [BENCHMARKS, "resume=true", "evaluation.batch_size=3"]))


def test_training_does_not_look_at_them(write_yaml, tmp_path):
    settings = [BENCHMARKS, "training.steps=1", "evaluation.benchmarks.mme.folder=no/such/folder"]
    train(load_recipe(write_yaml(), settings))
    written = yaml.safe_load((tmp_path / "out/recipe.yaml").read_text())
    assert written["evaluation"]["benchmarks"]["mme"] == {"folder": "no/such/folder"}


def test_tiny_runs_ask_made_up_questions_and_want_short_answers(tmp_path):
    data = {
        "model": {"name": "tiny-avt"},
        "data": {"train": {"name": "av_digits"}},
        "output_dir": str(tmp_path / "out"),
        "evaluation": {"benchmarks": {"pope": None, "mmau": {"folder": "data/x", "task": "speech"}}},
    }
    small = shrink_recipe(data)["evaluation"]
    assert small == {
        "batch_size": 2,
        "max_new_tokens": 4,
        "benchmarks": {"pope": {"max_new_tokens": 4}, "mmau": {"task": "speech", "max_new_tokens": 4}},
    }
