import json

from moka_peft.cli import call


def test_training_says_where_the_adapter_is(adapter):
    assert (adapter / "adapter_model.safetensors").is_file()


def test_an_earlier_run_is_refused_in_one_line(recipe, adapter, capsys):
    assert call(["train", str(recipe)]) == 1
    shown = capsys.readouterr().err
    assert shown.startswith("moka: `output_dir` holds a finished run")
    assert shown.count("\n") == 1


def test_resuming_a_finished_run_is_done_at_once(recipe, adapter, capsys):
    assert call(["train", str(recipe), "--resume"]) == 0
    assert "nothing to do" in capsys.readouterr().out


def test_every_mistake_of_a_recipe_is_a_line(recipe, capsys):
    assert call(["train", str(recipe), "adapter.rank=3", "seed=x"]) == 2
    shown = capsys.readouterr().err.splitlines()
    assert shown == [
        "moka: command line: adapter.rank=3: `adapter.rank` is not a recipe key. Did you mean `adapter.rank_pattern`?",
        "moka: command line: seed=x: `seed` is wrong: expected a valid integer, got 'x'.",
    ]


def test_an_error_in_a_worker_is_one_line_too(recipe, tmp_path, capfd):
    turns = [{"role": "user", "content": "Is it long?"}, {"role": "assistant", "content": "yes " * 99}]
    (tmp_path / "rows.jsonl").write_text(f"{json.dumps({'messages': turns})}\n" * 2)
    text = recipe.read_text().replace("name: av_digits, size: 4", f"path: {tmp_path}/rows.jsonl")
    (tmp_path / "recipe.yaml").write_text(text)
    settings = ["training.num_workers=1", "training.max_length=20", f"output_dir={tmp_path}/out", "data.eval=null"]
    assert call(["train", str(tmp_path / "recipe.yaml"), *settings]) == 1
    [line] = [line for line in capfd.readouterr().err.splitlines() if line.startswith("moka: ")]
    assert line.startswith(f"moka: {tmp_path}/rows.jsonl, row ") and "Traceback" not in line
