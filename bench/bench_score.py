"""Times what `moka score` does with a file of 10,000 records, and how long it takes to start.

    python bench/bench_score.py        # two minutes on a CPU

Per benchmark and protocol: reading the file, reading the answers and scoring, in seconds; beside it the comparison of
two runs on the same questions. Records are made up, in the form of the released files; one answer in ten cannot be
read. The bar is 2 seconds for a file, 3 for a comparison. Writes bench/results/score.json.
"""

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from recording import RESULTS, header, say, table, write

from moka_peft.evaluation import BENCHMARKS, PROTOCOLS, read_records, summarise
from moka_peft.evaluation.comparison import compare_records

BAR_SECONDS, COMPARISON_BAR_SECONDS = 2.0, 3.0
LETTERS = "ABCD"
MME = ("existence", "count", "position", "color", "posters", "celebrity", "scene", "landmark", "artwork", "OCR")
KINDS = ("Counting", "Location", "Existential", "Comparative", "Temporal")
STARTS = {
    "import moka_peft": ["-c", "import moka_peft"],
    "import moka_peft.evaluation": ["-c", "import moka_peft.evaluation"],
    "moka score": ["-m", "moka_peft.cli", "score", "pope", "{file}", "--json"],
}


def event(random: random.Random) -> tuple[str, int, int]:
    start = random.randrange(9)
    return random.choice(("Bark", "Church bell", "Violin, fiddle")), start, random.randrange(start + 1, 11)


def ave(number: int, random: random.Random) -> dict[str, Any]:
    name, start, end = event(random)
    said, begin, stop = event(random)
    right = f"event:{name} start_time:{start} end_time:{end}</s>"
    return {"output": right, "predict": f"It is <event>{said}</event> in <range>{begin},{stop}</range></s>"}


def music_avqa(number: int, random: random.Random) -> dict[str, Any]:
    right, said = (random.choice(("two", "ten", "more than ten", "violin")) for _ in range(2))
    kind = ["Audio-Visual", KINDS[number % len(KINDS)]]
    predict = f"They play. <answer> {said} </answer></s>"
    return {"output": f"<answer>{right}</answer>", "predict": predict, "question_type": kind}


def mme(number: int, random: random.Random) -> dict[str, Any]:
    subtask = MME[number * len(MME) // 10_000 % len(MME)]
    return yes_or_no(number, random) | {"subtask": subtask, "image_path": f"MME/{subtask}/{number // 2}.jpg"}


def yes_or_no(number: int, random: random.Random) -> dict[str, Any]:
    said = random.choice(("Yes", "No", "Yes, there is.</s>", "no, there is none"))
    return {"question": "Is there a dog in the picture?", "answer": ("Yes", "No")[number % 2], "output": [said]}


def pope(number: int, random: random.Random) -> dict[str, Any]:
    row = yes_or_no(number, random)
    return row | {"answer": row["answer"].lower(), "split": ("random", "popular", "adversarial")[number % 3]}


def letter(number: int, random: random.Random) -> dict[str, Any]:
    said = random.choice(("A", "B.", "(C)", "d </s>"))
    return {"question": "Which?\nA. one\nB. two\nC. three\nD. four", "answer": random.choice(LETTERS), "output": [said]}


def mmau(number: int, random: random.Random) -> dict[str, Any]:
    choices = ["a man speaks", "a woman speaks", "two children laugh", "nobody speaks at all"]
    facts = {"task": ("speech", "sound", "music")[number % 3], "difficulty": ("easy", "hard")[number % 2]}
    said = {"model_prediction": f"I hear that {random.choice(choices)}."}
    return {"id": str(number), "answer": random.choice(choices), "choices": choices, **facts, **said}


def air_bench(number: int, random: random.Random) -> dict[str, Any]:
    choices = {"choice_a": "male", "choice_b": "female", "choice_c": "both", "choice_d": "neither"}
    facts = {"task_name": f"Speech_{number % 9}", "dataset_name": f"set_{number % 4}"}
    said = random.choice(("A. male", "(B)", "C", "It is neither"))
    return {"response": said, "answer_gt": random.choice(list(choices.values())), **choices, **facts}


ROWS: dict[str, Callable[[int, random.Random], dict[str, Any]]] = {
    "music_avqa": music_avqa,
    "ave": ave,
    "mme": mme,
    "mmbench": letter,
    "pope": pope,
    "seed_bench": letter,
    "mmau": mmau,
    "air_bench": air_bench,
}
SAID = ("predict", "output", "model_prediction", "response")


def write_file(path: Path, name: str, count: int, seed: int) -> Path:
    """A file of made-up records of one benchmark."""
    drawn = random.Random(seed)
    with path.open("w", encoding="utf-8") as file:
        for number in range(count):
            row = ROWS[name](number, drawn)
            if drawn.random() < 0.1:
                key = next(key for key in SAID if key in row)
                row[key] = "I do not know"
            file.write(json.dumps(row) + "\n")
    return path


def seconds_of(work: Callable[[], Any], rounds: int) -> float:
    """The median over some rounds."""
    taken = []
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def measure(name: str, path: Path, rounds: int) -> dict[str, float]:
    """Seconds for a file under each protocol, and for the comparison of two runs."""
    known = BENCHMARKS[name]

    def score(protocol: Any) -> None:
        summarise(name, known, read_records(path, known.needs), protocol)

    found = {protocol: seconds_of(lambda protocol=protocol: score(protocol), rounds) for protocol in PROTOCOLS}
    records = [replace(one, id=str(place)) for place, one in enumerate(read_records(path, known.needs))]
    moved = [
        replace(one, prediction=other.prediction) for one, other in zip(records, records[2:] + records, strict=False)
    ]
    runs = {"a": records, "b": moved}
    found["comparison"] = seconds_of(lambda: compare_records(known, name, runs, "strict"), rounds)
    return {what: round(seconds, 3) for what, seconds in found.items()}


def start(arguments: list[str], file: Path, rounds: int) -> float:
    words = [sys.executable, *(word.format(file=file) for word in arguments)]
    return round(seconds_of(lambda: subprocess.run(words, check=True, capture_output=True), rounds), 2)


def main(arguments: list[str] | None = None) -> None:
    """Measures, prints and records."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--starts", type=int, default=3, help="rounds of each start of Python; 0: none")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS / "score.json")
    options = parser.parse_args(arguments)
    found, starts = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        for name in BENCHMARKS:
            path = write_file(Path(folder) / f"{name}.jsonl", name, options.records, options.seed)
            found[name] = measure(name, path, options.rounds)
            say(f"{name}: {found[name]}")
        if options.starts:
            starts = {what: start(words, Path(folder) / "pope.jsonl", options.starts) for what, words in STARTS.items()}
    met = all(
        seconds <= (COMPARISON_BAR_SECONDS if what == "comparison" else BAR_SECONDS)
        for times in found.values()
        for what, seconds in times.items()
    )
    write(options.out, header("bench_score", options, arguments) | {
        "records": options.records, "rounds": options.rounds, "seconds": found, "start_seconds": starts,
        "bar_seconds": BAR_SECONDS, "comparison_bar_seconds": COMPARISON_BAR_SECONDS, "bar_is_met": met,
    })  # fmt: skip
    print(table(["benchmark", *PROTOCOLS, "comparison"], [[name, *times.values()] for name, times in found.items()]))
    print(table(["start", "seconds"], starts.items()))


if __name__ == "__main__":
    main()
