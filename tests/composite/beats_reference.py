"""BEATs as plain loops in float64, and a checkpoint in its published form: from the papers, not from the package."""

import math

import numpy as np
import torch

TINY = {
    "encoder_layers": 12,
    "encoder_embed_dim": 8,
    "encoder_ffn_embed_dim": 10,
    "encoder_attention_heads": 2,
    "activation_fn": "gelu",
    "layer_norm_first": False,
    "deep_norm": True,
    "dropout": 0.0,
    "attention_dropout": 0.0,
    "activation_dropout": 0.0,
    "encoder_layerdrop": 0.05,
    "dropout_input": 0.0,
    "conv_bias": False,
    "conv_pos": 6,
    "conv_pos_groups": 2,
    "relative_position_embedding": True,
    "num_buckets": 12,
    "max_distance": 10,
    "gru_rel_pos": True,
    "input_patch_size": 16,
    "layer_wise_gradient_decay_ratio": 0.6,
    "embed_dim": 6,
    "finetuned_model": False,
}
"""A published cfg of twelve layers, narrow enough for loops."""

ITER3_PLUS = TINY | {
    "encoder_embed_dim": 768,
    "encoder_ffn_embed_dim": 3072,
    "encoder_attention_heads": 12,
    "conv_pos": 128,
    "conv_pos_groups": 16,
    "num_buckets": 320,
    "max_distance": 800,
    "embed_dim": 512,
}


def published_shapes(cfg: dict) -> dict[str, tuple[int, ...]]:
    """Every key of a published checkpoint with its shape."""
    width, inner, heads = cfg["encoder_embed_dim"], cfg["encoder_ffn_embed_dim"], cfg["encoder_attention_heads"]
    patch, taps = cfg["input_patch_size"], cfg["conv_pos"]
    shapes = {
        "patch_embedding.weight": (cfg["embed_dim"], 1, patch, patch),
        "layer_norm.weight": (cfg["embed_dim"],),
        "layer_norm.bias": (cfg["embed_dim"],),
        "post_extract_proj.weight": (width, cfg["embed_dim"]),
        "post_extract_proj.bias": (width,),
        "encoder.pos_conv.0.weight_g": (1, 1, taps),
        "encoder.pos_conv.0.weight_v": (width, width // cfg["conv_pos_groups"], taps),
        "encoder.pos_conv.0.bias": (width,),
        "encoder.layer_norm.weight": (width,),
        "encoder.layer_norm.bias": (width,),
    }
    linears = {f"self_attn.{name}_proj": (width, width) for name in ("q", "k", "v", "out")}
    linears |= {"fc1": (inner, width), "fc2": (width, inner), "self_attn.grep_linear": (8, width // heads)}
    for layer in range(cfg["encoder_layers"]):
        start = f"encoder.layers.{layer}."
        shapes[f"{start}self_attn.grep_a"] = (1, heads, 1, 1)
        shapes[f"{start}self_attn.relative_attention_bias.weight"] = (cfg["num_buckets"], heads)
        for name, shape in linears.items():
            shapes |= {f"{start}{name}.weight": shape, f"{start}{name}.bias": shape[:1]}
        for name in ("self_attn_layer_norm", "final_layer_norm"):
            shapes |= {f"{start}{name}.weight": (width,), f"{start}{name}.bias": (width,)}
    return shapes


def published_checkpoint(cfg: dict = TINY, seed: int = 0) -> dict:
    """{"cfg", "model"} with random weights, all large enough to matter; the position bias is one tensor."""
    generator = torch.Generator().manual_seed(seed)
    weights = {name: 0.5 * torch.randn(*shape, generator=generator) for name, shape in published_shapes(cfg).items()}
    for name in weights:
        if name.endswith("relative_attention_bias.weight"):
            weights[name] = weights["encoder.layers.0.self_attn.relative_attention_bias.weight"]
    return {"cfg": dict(cfg), "model": weights}


def reference_states(checkpoint: dict, spectrogram: np.ndarray) -> list[np.ndarray]:
    """What enters the first layer and what leaves each, [T, D], for one spectrogram [frames, bins]."""
    cfg = checkpoint["cfg"]
    weights = {name: weight.double().numpy() for name, weight in checkpoint["model"].items()}
    states = _linear(weights, "post_extract_proj", _norm(weights, "layer_norm", _patches(weights, cfg, spectrogram)))
    states = _norm(weights, "encoder.layer_norm", states + _gelu(_position(weights, cfg, states)))
    outputs = [states]
    alpha = (2 * cfg["encoder_layers"]) ** 0.25
    for layer in range(cfg["encoder_layers"]):
        start = f"encoder.layers.{layer}."
        attended = _attention(weights, cfg, start, states)
        states = _norm(weights, f"{start}self_attn_layer_norm", alpha * states + attended)
        inner = _gelu(_linear(weights, f"{start}fc1", states))
        states = _norm(weights, f"{start}final_layer_norm", alpha * states + _linear(weights, f"{start}fc2", inner))
        outputs.append(states)
    return outputs


def reference_bucket(distance: int, buckets: int, max_distance: int) -> int:
    """The bucket of a key that lies `distance` patches after its query."""
    half = buckets // 2
    offset = half if distance > 0 else 0
    distance, exact = abs(distance), half // 2
    if distance < exact:
        return offset + distance
    share = math.log(distance / exact) / math.log(max_distance / exact)
    return offset + min(half - 1, exact + int(share * (half - exact)))


def _patches(weights: dict, cfg: dict, spectrogram: np.ndarray) -> np.ndarray:
    size, rows = cfg["input_patch_size"], []
    for time in range(spectrogram.shape[0] // size):
        for band in range(spectrogram.shape[1] // size):
            patch = spectrogram[time * size : (time + 1) * size, band * size : (band + 1) * size]
            rows.append([(kernel[0] * patch).sum() for kernel in weights["patch_embedding.weight"]])
    return np.array(rows)


def _position(weights: dict, cfg: dict, states: np.ndarray) -> np.ndarray:
    taps, width = cfg["conv_pos"], states.shape[1]
    direction, per_group = weights["encoder.pos_conv.0.weight_v"], width // cfg["conv_pos_groups"]
    out = np.tile(weights["encoder.pos_conv.0.bias"], (len(states), 1))
    for tap in range(taps):
        kernel = direction[:, :, tap] * weights["encoder.pos_conv.0.weight_g"][0, 0, tap]
        kernel = kernel / math.sqrt((direction[:, :, tap] ** 2).sum())
        for time in range(len(states)):
            source = time + tap - taps // 2
            if 0 <= source < len(states):
                for channel in range(width):
                    first = channel // per_group * per_group
                    out[time, channel] += kernel[channel] @ states[source, first : first + per_group]
    return out


def _attention(weights: dict, cfg: dict, start: str, states: np.ndarray) -> np.ndarray:
    heads = cfg["encoder_attention_heads"]
    size, length = states.shape[1] // heads, len(states)
    query, key, value = (_linear(weights, f"{start}self_attn.{name}_proj", states) for name in "qkv")
    biases = weights[f"{start}self_attn.relative_attention_bias.weight"]
    mixed = np.zeros_like(states)
    for head in range(heads):
        part = slice(head * size, (head + 1) * size)
        for i in range(length):
            units = _linear(weights, f"{start}self_attn.grep_linear", query[i, part])
            reset, update = _sigmoid(units[:4].sum()), _sigmoid(units[4:].sum())
            gate = reset * (update * weights[f"{start}self_attn.grep_a"][0, head, 0, 0] - 1) + 2
            logits = [
                query[i, part] @ key[j, part] / math.sqrt(size)
                + gate * biases[reference_bucket(j - i, cfg["num_buckets"], cfg["max_distance"]), head]
                for j in range(length)
            ]
            shares = np.exp(np.array(logits) - max(logits))
            mixed[i, part] = shares / shares.sum() @ value[:, part]
    return _linear(weights, f"{start}self_attn.out_proj", mixed)


def _linear(weights: dict, name: str, states: np.ndarray) -> np.ndarray:
    return states @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]


def _norm(weights: dict, name: str, states: np.ndarray) -> np.ndarray:
    centred = states - states.mean(-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
    return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def _gelu(states: np.ndarray) -> np.ndarray:
    return states * (1 + np.vectorize(math.erf)(states / math.sqrt(2))) / 2


def _sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))
