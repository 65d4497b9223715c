"""What made-up media show and sound like: bars of a colour, and notes."""

from dataclasses import dataclass

import numpy as np

from moka_peft.data.generated.encoding import FRAMES_PER_SECOND, RATE_HZ

HEIGHT, WIDTH = 48, 64
COLOURS = {"red": (210, 40, 40), "green": (40, 170, 60), "blue": (50, 70, 210), "yellow": (230, 210, 60)}
PITCHES_HZ = {"low": 220.0, "middle": 440.0, "high": 880.0}
NUMBERS = ("zero", "one", "two", "three")
NOTE_SECONDS = 0.3


@dataclass(frozen=True)
class Scene:
    """One to three bars of a colour, and one to three notes of a pitch."""

    colour: str
    bars: int
    pitch: str
    notes: int


def draw_scene(rng: np.random.Generator, index: int) -> Scene:
    """A scene; those of neighbouring indices differ."""
    colour, pitch = list(COLOURS)[index % len(COLOURS)], list(PITCHES_HZ)[index % len(PITCHES_HZ)]
    return Scene(colour, 1 + (index + int(rng.integers(2))) % 3, pitch, 1 + int(rng.integers(3)))


def picture_of(scene: Scene, shift: int = 0) -> np.ndarray:
    """A picture, uint8 [48, 64, 3]: the bars on grey, `shift` pixels to the right."""
    picture = np.full((HEIGHT, WIDTH, 3), 120, dtype=np.uint8)
    for bar in range(scene.bars):
        left = (6 + 20 * bar + shift) % (WIDTH - 10)
        picture[8:40, left : left + 10] = COLOURS[scene.colour]
    return picture


def frames_of(scene: Scene, seconds: float, start: float = 0.0, end: float | None = None) -> np.ndarray:
    """Frames, uint8 [T, 48, 64, 3], of bars that move from second `start` to `end`; grey before and after."""
    blank = np.full((HEIGHT, WIDTH, 3), 120, dtype=np.uint8)
    times = np.arange(round(seconds * FRAMES_PER_SECOND)) / FRAMES_PER_SECOND
    shown = (times >= start) & (times < (seconds if end is None else end))
    return np.stack([picture_of(scene, i) if seen else blank for i, seen in enumerate(shown)])


def sound_of(scene: Scene, seconds: float, start: float = 0.0, end: float | None = None) -> np.ndarray:
    """A recording, float32 [samples] at 16 kHz: the notes, spread from second `start` to `end`."""
    waveform = np.zeros(round(seconds * RATE_HZ), dtype=np.float32)
    length = (seconds if end is None else end) - start
    for note in range(scene.notes):
        first = round((start + length * note / scene.notes) * RATE_HZ)
        times = np.arange(round(min(NOTE_SECONDS, length / scene.notes) * RATE_HZ)) / RATE_HZ
        tone = np.sin(2 * np.pi * PITCHES_HZ[scene.pitch] * times) * np.hanning(len(times)) * 0.5
        waveform[first : first + len(tone)] += tone[: len(waveform) - first].astype(np.float32)
    return waveform
