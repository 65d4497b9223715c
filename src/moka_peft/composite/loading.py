"""Loads pretrained parts whole: transformers gives random values to what a folder lacks, and only logs it."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from transformers.utils import logging

MAY_LACK = r"(^|\.)(masked_spec_embed|mask_token|pooler|head)(\.|$)"
"""Weights that a forward here never reads: those of pre-training, and of pooled outputs."""


def load_whole(load: Callable[..., Any], name: str, may_lack: str = MAY_LACK, **kwargs: Any) -> Any:
    """What `load(name, **kwargs)`, a `from_pretrained`, gives. `may_lack` matches weights that may be missing.

    Raises ValueError where others are missing. Of those that are left over, such as CLIP's text tower, nothing is said.
    """
    with _without_report():
        model, report = load(name, output_loading_info=True, **kwargs)
    if missing := sorted(key for key in report["missing_keys"] if not re.search(may_lack, key)):
        raise ValueError(
            f"{len(missing)} weights of {type(model).__name__} are not there, such as `{missing[0]}`: they would be "
            "random."
        )
    return model


@contextmanager
def _without_report() -> Iterator[None]:
    """Keeps transformers' table of missing and left over weights off the terminal; errors are still logged."""
    level = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)
