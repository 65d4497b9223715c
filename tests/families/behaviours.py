"""What an adapted model of any family does. Each function asserts, and may return a remark for the table."""

from __future__ import annotations

import copy
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from os.path import commonprefix

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn

from moka_peft import MokaConfig, route
from moka_peft.tuner import MokaLinear
from moka_peft.tuner.quantized import dense_weight

from .case import Case, gradients
from .layout import Tensors
from .quantizers import KINDS

MATTERS = 1e-3  # logits are near 1
EQUAL = dict(rtol=1e-4, atol=2e-4)  # two shapes of one computation in float32, through layers near saturation


def own_A(case: Case) -> None:
    """Every modality's A changes the rows that hold it, and no other row."""
    model = case.adapted()
    rows = {"text": "qw", **{case.modality[letter]: f"x{letter}y" for letter in case.family.media}}
    before = {name: case.logits(model, [row])[0] for name, row in rows.items()}
    for modality in rows:
        with changed(model, f"moka_A_{modality}"):
            for name, row in rows.items():
                after = case.logits(model, [row])[0]
                if modality in (name, "text"):  # every row has text
                    assert (after - before[name]).abs().max() > MATTERS, (modality, name)
                else:
                    assert torch.equal(after, before[name]), (modality, name)


@contextmanager
def changed(model: nn.Module, name: str) -> Iterator[None]:
    """`model` with other values in the parameters of `name`."""
    parameters = [p for key, p in model.named_parameters() if f".{name}." in key]
    kept = [p.data.clone() for p in parameters]
    for p in parameters:
        p.data = p.data.flip(-1)
    yield
    for p, data in zip(parameters, kept, strict=True):
        p.data = data


def attention(case: Case) -> None:
    """Media receive their own turn's instruction in the first layer, through attention alone."""
    model, alone = case.adapted(), case.adapted(interaction="none")
    for letter in case.family.media:
        base, own, other = f"x{letter}y|p|q", f"x{letter}w|p|q", f"x{letter}y|p|w"
        delta = case.first_delta(model, base)
        assert (case.first_delta(model, own) - delta).abs().max() > MATTERS
        torch.testing.assert_close(case.first_delta(model, other), delta)
        torch.testing.assert_close(case.first_delta(alone, own), case.first_delta(alone, base))


def disabled(case: Case) -> None:
    """A disabled adapter leaves the base bit for bit."""
    model = case.adapted()
    for rows in case.batches:
        expected = case.logits(case.base, rows)
        assert not torch.allclose(case.logits(model, rows)[0], expected[0], atol=MATTERS)
        with model.disable_adapter():
            assert all(torch.equal(a, b) for a, b in zip(case.logits(model, rows), expected, strict=True))


def trains(case: Case) -> None:
    """Every adapter weight gets a gradient that is not zero, and nothing else gets one."""
    model = case.adapted().train()
    for rows in case.batches:
        case.run(model)(**case.family.inputs(rows)).logits.float().square().mean().backward()
    found = gradients(model)
    assert found and all("moka_" in name for name in found)
    assert all(g is not None and g.abs().max() > 0 for g in found.values()), [
        name for name, g in found.items() if g is None or not g.any()
    ]


def absent(case: Case) -> None:
    """A modality that a batch does not hold gets zero gradients, never none."""
    model = case.adapted().train()
    case.run(model)(**case.family.inputs(["qw", "xyz|p|q"])).logits.square().mean().backward()
    for name, gradient in gradients(model).items():
        is_media = "moka_A_" in name and "moka_A_text" not in name
        assert gradient is not None and bool(gradient.any()) != is_media, name


def saved(case: Case) -> None:
    """Saved and loaded onto the base again, all outputs are the same."""
    model = case.adapted()
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        loaded = PeftModel.from_pretrained(copy.deepcopy(case.base), folder).eval()
    for rows in case.batches:
        pairs = zip(case.logits(loaded, rows), case.logits(model, rows), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)


def merged(case: Case) -> None:
    """The merged text path plus the media residual is the unmerged adapter."""
    model = case.adapted()
    expected = [case.logits(model, rows) for rows in case.batches]
    model.merge_adapter()
    for rows, before in zip(case.batches, expected, strict=True):
        for got, want in zip(case.logits(model, rows), before, strict=True):
            torch.testing.assert_close(got, want, **EQUAL)


def checkpointing(case: Case) -> str | None:
    """Both kinds of gradient checkpointing, with two forwards before one backward, change no gradient."""
    if not case.base.supports_gradient_checkpointing:
        return "base has none"
    assert checkpointing_changes_nothing(case, case.adapted, reentrant=False)
    if checkpointing_changes_nothing(case, case.adapted, reentrant=True):
        return None
    # layers that share keys and values hand them on in a dict, which reentrant checkpointing does not see
    assert not checkpointing_changes_nothing(case, lambda: lora(case), reentrant=True)
    return "base not reentrant"


def lora(case: Case) -> PeftModel:
    """PEFT's LoRA on the projections that MokA adapts."""
    config = LoraConfig(r=4, target_modules=adapted_names(case.adapted()), init_lora_weights=False)
    return get_peft_model(copy.deepcopy(case.base), config)


def adapted_names(model: PeftModel) -> list[str]:
    return [name for name, m in model.get_base_model().named_modules() if isinstance(m, MokaLinear)]


def checkpointing_changes_nothing(case: Case, build: Callable[[], PeftModel], *, reentrant: bool) -> bool:
    expected, found = two_forwards(case, build(), None), two_forwards(case, build(), reentrant)
    assert expected.keys() == found.keys()
    return all(torch.allclose(found[name], gradient, rtol=1e-3, atol=1e-6) for name, gradient in expected.items())


def two_forwards(case: Case, model: PeftModel, reentrant: bool | None) -> dict[str, torch.Tensor]:
    """Gradients of two batches of the same shapes and other routing."""
    if reentrant is not None:
        options = {"use_reentrant": reentrant}
        root = model.get_base_model()
        if hasattr(root, "activation_checkpointing_enable"):  # the name since transformers 5.23
            root.activation_checkpointing_enable(activation_checkpointing_kwargs=options)
        else:
            root.gradient_checkpointing_enable(gradient_checkpointing_kwargs=options)
        model.enable_input_require_grads()
    model.train()
    letter = case.family.media[0]
    with warnings.catch_warnings():  # a frozen tower is checkpointed too
        warnings.filterwarnings("ignore", "None of the inputs have requires_grad=True")
        losses = [
            case.run(model)(**on(model.device, case.family.inputs(rows))).logits.float().square().mean()
            for rows in ([f"x{letter}yz|p", "qw"], [f"{letter}xyz|p", "wq"])
        ]
        sum(losses).backward()
    return {name: gradient for name, gradient in gradients(model).items() if gradient is not None}


def on(device: torch.device, inputs: Tensors) -> Tensors:
    return {name: value.to(device) for name, value in inputs.items()}


def batching(case: Case) -> None:
    """A row alone, in a batch, padded left or right: the same logits."""
    model = case.adapted()
    for rows in case.batches:
        alone = [case.logits(model, [row])[0] for row in rows]
        for side in ("left", "right"):
            for got, want in zip(case.logits(model, rows, padding_side=side), alone, strict=True):
                torch.testing.assert_close(got, want, **EQUAL)


def no_leak(case: Case) -> str | None:
    """Another answer changes nothing before it; loss on the instruction is refused."""
    model = case.adapted()
    for letter in case.family.media:
        row, other = f"x{letter}y|pp|q", f"x{letter}y|ww|q"
        before, after = case.logits(model, [row])[0], case.logits(model, [other])[0]
        start = int(
            (case.family.inputs([row])["input_ids"] != case.family.inputs([other])["input_ids"])[0].int().argmax()
        )
        causal = torch.equal(*(case.logits(case.base, [r])[0][:start] for r in (row, other)))
        assert torch.equal(before[:start], after[:start]) or not causal
    inputs = case.family.inputs([f"{case.family.media[0]}xy|pp"])
    with pytest.raises(ValueError, match="2 instruction tokens carry loss"):
        case.run(model)(**inputs, labels=inputs["input_ids"])
    return None if causal else "base sees ahead"


def targets(case: Case) -> None:
    """Linears of the text decoder's layers are adapted, all of its projections, and none elsewhere."""
    model = case.adapted()
    names = adapted_names(model)
    decoder = case.run(model).get_decoder()
    inside = {id(m) for m in decoder.layers.modules()}
    assert all(id(m) in inside for m in model.modules() if isinstance(m, MokaLinear))
    per_layer = [sum(f"layers.{index}." in name for name in names) for index in range(len(decoder.layers))]
    assert min(per_layer) >= 4 and names
    inner = commonprefix(names)
    linears = (name for name, m in case.base.named_modules() if isinstance(m, nn.Linear))
    outside = next(name for name in linears if not name.startswith(inner) and "lm_head" not in name)
    with pytest.raises(ValueError, match="outside the text decoder"):
        case.adapted(target_modules=outside.replace(".", r"\."))


def quantized(case: Case, kind: str) -> None:
    """On a quantized decoder the adapter adds what it adds on the same weights as floats, and trains."""
    base, plain = case.fresh_base(), case.fresh_base()
    for name in case.layers(case.adapted()):
        parent, _, child = name.rpartition(".")
        linear = KINDS[kind](case.run(base).get_submodule(name))
        setattr(case.run(base).get_submodule(parent), child, linear)
        case.run(plain).get_submodule(name).weight.data = dense_weight(linear).float()
    model, twin = case.adapted(base), case.adapted(plain)
    for rows in case.batches:
        with model.disable_adapter(), twin.disable_adapter():
            base_logits = case.logits(twin, rows)
            rounding = distance(case.logits(model, rows), base_logits)  # of the quantized kernels alone
        expected = case.logits(twin, rows)
        error = distance(case.logits(model, rows), expected)
        assert error < 5 * rounding + 1e-3 and distance(expected, base_logits) > 2 * error, (error, rounding)
    case.run(model.train())(**case.family.inputs(case.batches[0])).logits.square().mean().backward()
    assert all(g is not None for g in gradients(model).values())


def distance(rows: list[torch.Tensor], others: list[torch.Tensor]) -> float:
    return float(torch.stack([(a - b).norm() for a, b in zip(rows, others, strict=True)]).norm())


def other_adapters(case: Case) -> None:
    """Two adapters with other orders of modalities: each alone as if it were the only one, and both together."""
    model, rows = case.adapted(), case.batches[0]
    first = case.logits(model, rows)
    names = ("text", *reversed(case.family.spec.modalities[1:]))
    second = MokaConfig(r=2, modalities=names, routing=case.family.spec, init_lora_weights=False)
    model.add_adapter("second", second)
    assert all(torch.equal(a, b) for a, b in zip(case.logits(model, rows), first, strict=True))
    model.set_adapter("second")
    other = case.logits(model, rows)
    model.base_model.set_adapter(["default", "second"])
    both = case.logits(model, rows)
    assert not torch.allclose(both[0], first[0], atol=MATTERS) and not torch.allclose(both[0], other[0], atol=MATTERS)


def explicit(case: Case) -> None:
    """Routing given by hand equals routing read from the ids."""
    model = case.adapted(routing=None)
    inputs = case.family.inputs(case.batches[0])
    routing = route(inputs["input_ids"], case.family.spec, inputs["attention_mask"])
    with torch.no_grad():
        got = case.run(model)(**inputs, routing=routing).logits
        assert torch.equal(got, case.run(case.adapted())(**inputs).logits)


BEHAVIOURS: dict[str, Callable[[Case], str | None]] = {
    "targets": targets,
    "own A": own_A,
    "attention": attention,
    "trains": trains,
    "absent modality": absent,
    "disabled": disabled,
    "saved": saved,
    "merged": merged,
    "checkpointing": checkpointing,
    "batching": batching,
    "no leak": no_leak,
    **{f"{kind} base": partial(quantized, kind=kind) for kind in KINDS},
    "two adapters": other_adapters,
    "explicit routing": explicit,
}
