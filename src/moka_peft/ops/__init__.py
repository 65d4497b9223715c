"""The maths of the adapted Linear, torch only."""

from .delta import INTERACTIONS, moka_delta

__all__ = ["INTERACTIONS", "moka_delta"]
