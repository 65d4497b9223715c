"""Writes a held-out sample of av_digits as files, to try `moka generate` on: examples/strip.png, examples/notes.wav.

python scripts/write_example.py examples
"""

import sys
from pathlib import Path

import soundfile

from moka_peft.data import AvDigits

SAMPLE = 14


def main(folder: Path) -> None:
    sample = AvDigits("test", size=SAMPLE + 1)[SAMPLE]
    image, audio, question = sample.messages[0]["content"]
    folder.mkdir(parents=True, exist_ok=True)
    image["image"].save(folder / "strip.png")
    soundfile.write(folder / "notes.wav", audio["audio"], audio["sample_rate_hz"])
    print(f"{sample.kind}: {question['text']} -> {sample.messages[1]['content']}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
