"""The two forms in which the authors' code writes an adapter, and what each of them means in `MokaConfig`'s words.

MokA, arXiv 2506.05191: the audio-visual-text code ("avt") and the visual-text code ("vt").
"""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Form:
    """One form.

    factors: their names of a Linear's weights -> ours. unused: a weight that their forward never reads. lambda_key:
    what their config calls `cross_scale`. options: the keywords of `MokaConfig` that compute what their code does.
    released: what their scripts set where a folder brings no config. neutral: further keys of their config, at the
    values that are mapped; others change the result in ways `MokaConfig` does not know. constant: what else their
    config holds, as their training leaves it.
    """

    factors: dict[str, str]
    unused: str | None
    lambda_key: str
    options: dict[str, Any]
    released: dict[str, float]
    neutral: dict[str, Any]
    constant: dict[str, Any]

    @property
    def modalities(self) -> tuple[str, ...]:
        """Ours, "text" first, in the order of the form's A's."""
        return tuple(name.removeprefix("moka_A_") for name in self.factors.values() if name != "moka_B")


FORMS = {
    "avt": Form(
        factors={
            "lora_A0": "moka_A_text",
            "lora_A1": "moka_A_visual",
            "lora_A2": "moka_A_audio",
            "lora_B0": "moka_B",
        },
        unused=None,
        lambda_key="blc_weight",
        options={"scale_before_attention": True, "instruction_span": "contiguous"},
        released={"lora_alpha": 16, "lora_dropout": 0.05, "cross_scale": 1.0},
        neutral={"bias": "none", "fan_in_fan_out": False, "enable_lora": None, "modules_to_save": None},
        constant={
            "lora_nums": 3,
            "loramethod": "train",
            "blc_alpha": 1.0,
            "reserved_modality": None,
            "merge_weights": False,
            "inference_mode": True,
            "task_type": "CAUSAL_LM",
        },
    ),
    "vt": Form(
        factors={"lora_A.text": "moka_A_text", "lora_A.image": "moka_A_visual", "lora_B.text": "moka_B"},
        unused="lora_B.image",
        lambda_key="attn_weight",
        options={"scale_before_attention": False, "instruction_span": "tokens"},
        released={"lora_alpha": 16, "lora_dropout": 0.05, "cross_scale": 0.05},
        neutral={
            "bias": "none",
            "fan_in_fan_out": False,
            "use_rslora": False,
            "use_dora": False,
            "rank_pattern": {},
            "alpha_pattern": {},
            "layers_to_transform": None,
            "modules_to_save": None,
        },
        constant={"inference_mode": True, "task_type": "CAUSAL_LM"},
    ),
}
