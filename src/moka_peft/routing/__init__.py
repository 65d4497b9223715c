"""Who is what: the modality and turn of every token."""

from .routing import PADDING, TEXT, Routing
from .scan import route
from .spec import RoutingSpec

__all__ = ["PADDING", "TEXT", "Routing", "RoutingSpec", "route"]
