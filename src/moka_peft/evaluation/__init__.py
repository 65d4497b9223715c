"""Benchmarks: load, ask, read the answers, score them; as we count and as the method's authors did."""

from moka_peft.evaluation import air_bench, ave, mmau, mmbench, mme, music_avqa, pope, seed_bench
from moka_peft.evaluation.benchmark import Benchmark
from moka_peft.evaluation.question import Question, ask
from moka_peft.evaluation.record import PROTOCOLS, Protocol, Record, read_records
from moka_peft.evaluation.score import Judged, Score, Share
from moka_peft.evaluation.summary import Summary, summarise

__all__ = [
    "BENCHMARKS",
    "PROTOCOLS",
    "Benchmark",
    "Judged",
    "Protocol",
    "Question",
    "Record",
    "Score",
    "Share",
    "Summary",
    "ask",
    "read_records",
    "summarise",
]

BENCHMARKS: dict[str, Benchmark] = {
    "music_avqa": music_avqa.BENCHMARK,
    "ave": ave.BENCHMARK,
    "mme": mme.BENCHMARK,
    "mmbench": mmbench.BENCHMARK,
    "pope": pope.BENCHMARK,
    "seed_bench": seed_bench.BENCHMARK,
    "mmau": mmau.BENCHMARK,
    "air_bench": air_bench.BENCHMARK,
}
