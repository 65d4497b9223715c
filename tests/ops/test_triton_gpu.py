"""The cases of kernel_cases.py on a CUDA device, compiled."""

import pytest

from .kernel_cases import *  # noqa: F403

pytestmark = pytest.mark.gpu
