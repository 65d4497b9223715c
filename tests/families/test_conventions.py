"""A family nobody has named works when it follows the conventions; else the error says what is missing."""

import logging

import pytest
import torch
from peft import get_peft_model
from torch import nn
from transformers import LlamaConfig, LlamaModel, PreTrainedConfig, PreTrainedModel

from moka_peft import MokaConfig, RoutingSpec

from .weights import TEXT
from .zoo import FAMILIES, REFUSED

DEPTH = 55


class SonarConfig(PreTrainedConfig):
    """A model of depth soundings, a kind of media with a name of its own."""

    model_type = "sonar"
    sub_configs = {"text_config": LlamaConfig}

    def __init__(self, text_config=None, depth_config=None, depth_token_id=DEPTH, **kwargs):
        self.text_config = LlamaConfig(**(text_config or TEXT))
        self.depth_config, self.depth_token_id = depth_config or {"bins": 8}, depth_token_id
        super().__init__(**kwargs)


class Sonar(PreTrainedModel):
    """Soundings [B, N, 8] take the place of depth tokens."""

    config_class = SonarConfig

    def __init__(self, config):
        super().__init__(config)
        self.sounder = nn.Linear(8, config.text_config.hidden_size)
        self.reader = LlamaModel(config.text_config)
        self.head = nn.Linear(config.text_config.hidden_size, config.text_config.vocab_size)
        self.post_init()

    def get_decoder(self):
        return self.reader

    def forward(self, input_ids, attention_mask=None, soundings=None, **kwargs):
        embeds = self.reader.embed_tokens(input_ids)
        if soundings is not None:
            embeds = embeds.masked_scatter((input_ids == DEPTH).unsqueeze(-1), self.sounder(soundings))
        return self.head(self.reader(inputs_embeds=embeds, attention_mask=attention_mask, **kwargs).last_hidden_state)


SPEC = RoutingSpec(placeholders={"depth": (DEPTH,)}, user_open=((2, 3),), user_close=((4,),))
IDS = torch.tensor([[1, 2, 3, DEPTH, DEPTH, 10, 11, 4, 20]])


def test_a_family_that_follows_the_conventions_works():
    torch.manual_seed(0)
    model = get_peft_model(Sonar(SonarConfig()), MokaConfig(r=4, routing=SPEC, init_lora_weights=False)).eval()
    assert model.peft_config["default"].modalities == ("text", "depth")
    names = [name for name, _ in model.named_parameters() if "moka_A_depth" in name]
    assert len(names) == 14 and all(".reader.layers." in name for name in names)
    soundings = torch.randn(1, 2, 8)
    before = model(input_ids=IDS, soundings=soundings)
    model.base_model.model.reader.layers[0].self_attn.q_proj.moka_A_depth["default"].weight.data *= 2
    assert not torch.allclose(model(input_ids=IDS, soundings=soundings), before)


def test_without_a_decoder_the_way_out_is_named():
    class Undivided(Sonar):
        def get_decoder(self):
            return None

    config = SonarConfig()
    config.vision_config = {"size": 3}
    model = Undivided(config)
    with pytest.raises(ValueError, match=r"text decoder of Undivided could not be told.*target_modules as a pattern"):
        get_peft_model(model, MokaConfig(routing=SPEC))
    adapted = get_peft_model(model, MokaConfig(routing=SPEC, target_modules=r"reader\.layers\..*\.(q|v)_proj"))
    adapted(input_ids=IDS, soundings=torch.randn(1, 2, 8))


def test_without_placeholders_the_way_out_is_named():
    config = SonarConfig(depth_token_id=None)
    with pytest.raises(ValueError, match=r"no placeholder token found.*MokaConfig\(modalities="):
        get_peft_model(Sonar(config), MokaConfig())


@pytest.mark.parametrize("family", REFUSED)
def test_models_without_media_tokens_are_refused_with_the_reason(family):
    with pytest.raises(
        ValueError, match=f"cannot adapt {family}: its images enter through cross-attention.*LoraConfig"
    ):
        get_peft_model(REFUSED[family](), MokaConfig())


def test_expert_weights_are_left_alone_and_named(caplog):
    family = FAMILIES["qwen3_omni_moe_thinker"]
    with caplog.at_level(logging.WARNING, logger="moka_peft"):
        model = get_peft_model(family.build(), MokaConfig(routing=family.spec))
    assert "4 expert weights of the text decoder" in caplog.text and "mlp.experts.gate_up_proj" in caplog.text
    assert not any("experts" in name and p.requires_grad for name, p in model.named_parameters())
