import pytest
from PIL import Image

from moka_peft.training.plot import draw_learning_rate, draw_loss, draw_scores


def test_a_picture_is_written(tmp_path):
    draw_loss([{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0}, {"step": 2, "scores": {}}], tmp_path / "loss.png")
    with Image.open(tmp_path / "loss.png") as picture:
        assert picture.size == (720, 420)
        assert len(picture.convert("RGB").getcolors(10**6)) > 10


def test_a_run_without_losses_has_an_empty_plot(tmp_path):
    draw_loss([], tmp_path / "loss.png")
    assert (tmp_path / "loss.png").is_file()


def colours(path) -> int:
    with Image.open(path) as picture:
        return len(picture.convert("RGB").getcolors(10**6))


def test_held_out_loss_is_drawn_beside_the_training_loss(tmp_path):
    history = [{"step": step, "loss": 2.0} for step in range(1, 5)]
    draw_loss(history, tmp_path / "alone.png")
    draw_loss([*history, {"step": 2, "held_out_loss": 1.0}, {"step": 4, "held_out_loss": 0.5}], tmp_path / "both.png")
    assert colours(tmp_path / "both.png") > colours(tmp_path / "alone.png")


@pytest.mark.parametrize("metric", ["exact_match", "wer"])
def test_scores_are_drawn_per_group(tmp_path, metric: str):
    key = "accuracy" if metric == "exact_match" else "value"
    scores = {group: {key: 0.5, "interval": (0.4, 0.6)} for group in ("all", "Audio")}
    draw_scores([{"step": step, "scores": scores} for step in (1, 2)], metric, tmp_path / "scores.png")
    draw_scores([{"step": 1, "loss": 1.0}], metric, tmp_path / "none.png")
    assert colours(tmp_path / "scores.png") > colours(tmp_path / "none.png")


def test_the_learning_rate_is_drawn(tmp_path):
    draw_learning_rate([{"step": 1, "learning_rate": 0.0}, {"step": 2, "learning_rate": 1e-3}], tmp_path / "rate.png")
    draw_learning_rate([], tmp_path / "none.png")
    assert colours(tmp_path / "rate.png") > colours(tmp_path / "none.png")
