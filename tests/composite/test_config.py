"""What a composite config refuses."""

import pytest

from moka_peft.composite import CompositeConfig, CompositeForConditionalGeneration

from .conftest import VISION, composite_config, text_config


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_token_id": None, "video_token_id": None}, "`vision_config` has no placeholder"),
        ({"vision_config": None}, "`image_token_id` or `video_token_id` is set without a `vision_config`"),
        ({"audio_token_id": 7}, "`audio_token_id` is set without a `audio_config`"),
        ({"vision_projector": {"type": "spline"}}, r"expected one of \['linear', 'mlp', 'qformer'\], got 'spline'"),
        ({"text_config": {"hidden_size": 8}}, "`text_config` has no `model_type`"),
        ({"vision_feature_layers": [9]}, r"`vision_feature_layers`.* from -3 to 2, got \[9\]"),
    ],
)
def test_parts_that_do_not_fit_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        composite_config(VISION["clip"](), **change)


def test_dicts_become_configs():
    config = CompositeConfig(text_config=text_config().to_dict(), vision_config=None)
    assert config.text_config.hidden_size == 16
    assert config.get_text_config() is config.text_config


def test_a_projector_setting_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match="`mlp` projector has wrong settings {'depth': 3}"):
        CompositeForConditionalGeneration(
            composite_config(VISION["vit"](), vision_projector={"type": "mlp", "depth": 3})
        )
