"""Every family does what every other does: one test per cell."""

import pytest

from .behaviours import BEHAVIOURS
from .case import Case
from .paths import PATHS, take
from .zoo import FAMILIES


@pytest.fixture(scope="module", params=FAMILIES)
def case(request):
    return Case(FAMILIES[request.param])


@pytest.mark.parametrize("behaviour", BEHAVIOURS)
def test_family(case, behaviour, record_property):
    note = BEHAVIOURS[behaviour](case)
    record_property("cell", [case.family.name, behaviour, note or ""])


@pytest.mark.parametrize("path", PATHS)
def test_path(case, path, record_property):
    note = take(PATHS[path], case)
    record_property("cell", [case.family.name, path, note or ""])
