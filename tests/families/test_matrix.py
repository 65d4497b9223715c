"""Every family does what every other does: one test per cell."""

import pytest

from .behaviours import BEHAVIOURS
from .case import Case
from .zoo import FAMILIES


@pytest.fixture(scope="module", params=FAMILIES)
def case(request):
    return Case(FAMILIES[request.param])


@pytest.mark.parametrize("behaviour", BEHAVIOURS)
def test_family(case, behaviour, record_property):
    note = BEHAVIOURS[behaviour](case)
    record_property("cell", [case.family.name, behaviour, note or ""])
