"""AVE's events, and which of them a ten-second video has in each of its seconds."""

from collections.abc import Iterable

NONE = "none"  # background: where there is no event
EVENTS = (
    "church bell",
    "male speech, man speaking",
    "bark",
    "fixed-wing aircraft, airplane",
    "race car, auto racing",
    "female speech, woman speaking",
    "helicopter",
    "violin, fiddle",
    "flute",
    "ukulele",
    "frying (food)",
    "truck",
    "shofar",
    "motorcycle",
    "acoustic guitar",
    "train horn",
    "clock",
    "banjo",
    "goat",
    "baby cry, infant cry",
    "bus",
    "chainsaw",
    "cat",
    "horse",
    "toilet flush",
    "rodents, rats, mice",
    "accordion",
    "mandolin",
)
"""As the annotation file has them, in lower case."""

NAMES = (NONE, *EVENTS)
SLOTS = 10


def slots(event: str, ranges: Iterable[tuple[int, int]]) -> list[str]:
    """The event of each second: first and last second of a range are part of it; what lies beyond the video is not."""
    ranges = list(ranges)
    return [event if any(start <= slot <= end for start, end in ranges) else NONE for slot in range(SLOTS)]
