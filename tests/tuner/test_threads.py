"""Calls that were interrupted, and calls in several threads at once."""

from __future__ import annotations

import threading

import pytest
import torch


@pytest.fixture
def model(adapted):
    return adapted()


@pytest.fixture
def rows(chat):
    """Two rows of one shape and another routing."""
    return chat("vvvq", "r"), chat("xyzq", "r")


def interrupted(model, ids, call):
    """Calls `call` on `ids` and stops it, as Ctrl-C does, in the last layer."""

    def stop(*_):
        raise KeyboardInterrupt

    handle = model.get_base_model().model.layers[-1].register_forward_pre_hook(stop)
    with pytest.raises(KeyboardInterrupt):
        call(ids)
    handle.remove()


@pytest.mark.parametrize(("first", "second"), [("root", "root"), ("inner", "root"), ("inner", "inner")])
def test_nothing_is_left_of_an_interrupted_forward(model, rows, first, second):
    calls = {"root": model, "inner": model.get_base_model().model}
    expected = calls[second](rows[1])[0]
    interrupted(model, rows[0], calls[first])
    assert torch.equal(calls[second](rows[1])[0], expected)


def test_nothing_is_left_of_an_interrupted_generate(model, rows):
    options = dict(do_sample=False, max_new_tokens=4, min_new_tokens=4)
    expected = model.generate(rows[1], **options)
    interrupted(model, rows[0], lambda ids: model.generate(ids, **options))
    assert torch.equal(model.generate(rows[1], **options), expected)


def in_another_thread(model, call):
    """Runs `call` in a thread that waits in the first layer; yields there, and returns what it gave or raised."""
    inside, go_on, results = threading.Event(), threading.Event(), []

    def wait(*_):
        if threading.current_thread() is thread:
            inside.set()
            go_on.wait(30)

    handle = model.get_base_model().model.layers[0].register_forward_pre_hook(wait)
    thread = threading.Thread(target=lambda: results.append(call()))
    thread.start()
    assert inside.wait(30)
    yield
    go_on.set()
    thread.join()
    handle.remove()
    yield results[0]


@pytest.mark.parametrize("method", ["forward", "generate"])
def test_a_second_thread_is_refused_and_harms_nothing(model, rows, method):
    options = {} if method == "forward" else dict(do_sample=False, max_new_tokens=3)
    call = {"forward": lambda ids: model(ids).logits, "generate": lambda ids: model.generate(ids, **options)}[method]
    expected = [call(ids) for ids in rows]
    running = in_another_thread(model, lambda: call(rows[0]))
    next(running)
    with pytest.raises(RuntimeError, match="another thread"):
        call(rows[1])
    assert torch.equal(next(running), expected[0])
    assert torch.equal(call(rows[1]), expected[1])


def test_a_thread_does_not_wait_for_what_another_left_interrupted(model, rows):
    expected = model(rows[1]).logits
    interrupted(model, rows[0], model)
    results = []
    thread = threading.Thread(target=lambda: results.append(model(rows[1]).logits))
    thread.start()
    thread.join()
    assert torch.equal(results[0], expected)
