from PIL import Image

from moka_peft.training.plot import draw_loss


def test_a_picture_is_written(tmp_path):
    draw_loss([{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0}, {"step": 2, "scores": {}}], tmp_path / "loss.png")
    with Image.open(tmp_path / "loss.png") as picture:
        assert picture.size == (720, 420)
        assert len(picture.convert("RGB").getcolors(10**6)) > 10


def test_a_run_without_losses_has_an_empty_plot(tmp_path):
    draw_loss([], tmp_path / "loss.png")
    assert (tmp_path / "loss.png").is_file()
