"""Media files made on the spot."""

from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest


@pytest.fixture
def fade(tmp_path: Path) -> Callable[[list[int]], Path]:
    """fade([20, 60]) -> a video of 32 x 16 pixels with one picture per shade of grey."""

    def write(shades: list[int]) -> Path:
        with av.open(str(tmp_path / "fade.mp4"), "w") as container:
            stream = container.add_stream("mpeg4", rate=10)
            stream.width, stream.height, stream.pix_fmt = 32, 16, "yuv420p"
            for shade in shades:
                picture = np.full((16, 32, 3), shade, dtype=np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            container.mux(stream.encode(None))
        return tmp_path / "fade.mp4"

    return write
