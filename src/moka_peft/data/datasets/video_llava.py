"""Video-LLaVA's captions of pictures and videos, of which MokA's projectors learn to see (Lin et al., EMNLP 2024).

    ROOT/valley_llavaimage.json             # or ROOT/train_json/; 558 thousand pictures, 703 thousand videos
    ROOT/llava_image/...                    # the paths of `image` and `video` in its rows start at ROOT
    ROOT/valley/...

Each row asks in its own words; `turns: single` puts its picture or video in front, in the words of MokA's authors.
"""

from pathlib import Path

from moka_peft.data.containers.contents import Container
from moka_peft.data.containers.json_list import StreamedJsonList
from moka_peft.data.datasets.layout import Layout
from moka_peft.data.datasets.single_turns import SingleTurns

REQUEST = "Please answer the question:\n{question}"
FILE = "valley_llavaimage.json"


def open_video_llava(root: Path, split: str = "train", *, turns: str = "multi") -> list[Container]:
    """The captions, all of which are for training."""
    path = Layout("video_llava", root).find("the annotation file", FILE, f"train_json/{FILE}")
    rows = StreamedJsonList(path, root)
    return [SingleTurns(rows, REQUEST) if turns == "single" else rows]
