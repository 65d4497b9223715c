import json

from moka_peft.cli import call


def test_a_valid_recipe_shows_its_tokens(recipe, capsys, monkeypatch):
    monkeypatch.setattr("moka_peft.training.model.load_model", lambda *_: 1 / 0)
    assert call(["validate", str(recipe)]) == 0
    shown = capsys.readouterr().out
    assert "data.train: 4 samples of " in shown
    assert "data.eval: 2 samples of " in shown
    assert "image" in shown
    assert shown.endswith("is valid\n")


def test_bad_samples_are_named(recipe, tmp_path, capsys):
    (tmp_path / "text.png").write_text("no picture")
    content = [{"type": "image", "image": "text.png"}, {"type": "text", "text": "What?"}]
    rows = [{"messages": [{"role": "user", "content": content}, {"role": "assistant", "content": "one"}]}] * 2
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "empty.json").write_text("[]")
    text = recipe.read_text().replace("name: av_digits, size: 4", f"path: {tmp_path}/rows.jsonl")
    text = text.replace("name: av_digits, split: test, size: 2", f"path: {tmp_path}/empty.json")
    (tmp_path / "recipe.yaml").write_text(text)
    assert call(["validate", str(tmp_path / "recipe.yaml")]) == 1
    shown = capsys.readouterr().err.splitlines()
    assert len(shown) == 4
    for position in (0, 1):
        assert shown[position].startswith(f"moka: data.train: sample {position} (rows-{position + 1}): {tmp_path}")
        assert f"rows.jsonl, row {position + 1}, `messages[0].content[0].image`: image " in shown[position]
    assert "empty.json` is empty" in shown[2]
    assert shown[3].startswith(f"moka: {tmp_path}/recipe.yaml is not valid: 3 problems")


def test_a_wrong_recipe_is_wrong_usage(recipe, capsys):
    assert call(["validate", str(recipe), "adapter.r=0"]) == 2
    assert "expected greater than 0, got 0" in capsys.readouterr().err
