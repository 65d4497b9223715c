"""How media are decoded: how much of each is read, and from where."""

from dataclasses import dataclass


@dataclass(frozen=True)
class MediaOptions:
    """Limits on what is decoded; None is no limit. Images and frames above theirs are made smaller, longer
    recordings and videos are read from their start on until the limit.

    video_frames: pictures of a video; with `video_fps`, the most of them that are taken at that rate.
    audio_segments: how many pieces of a recording are heard, as long as the processor's segments and spread over it; by
    default all of it, cut into segments by the processor.
    video_sound: puts a video's sound track behind it as an audio. allow_urls: lets http(s) addresses be fetched.
    """

    max_image_pixels: int | None = None
    video_frames: int = 8
    video_fps: float | None = None
    video_sound: bool = False
    max_video_seconds: float | None = None
    max_video_pixels: int | None = None
    max_audio_seconds: float | None = None
    audio_segments: int | None = None
    allow_urls: bool = False
    url_timeout_seconds: float = 10.0
    max_url_bytes: int = 100 * 2**20

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value is not None and value is not True and value is not False and value <= 0:
                raise ValueError(f"`{name}` is too small: expected more than 0, got {value}.")


DEFAULTS = MediaOptions()
