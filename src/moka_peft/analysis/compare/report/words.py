"""What the report says in sentences: what was found, what the numbers mean, what they cannot tell."""

from collections.abc import Sequence

from moka_peft.analysis.compare import formats
from moka_peft.analysis.compare.bootstrap import DRAWS
from moka_peft.analysis.compare.columns import against
from moka_peft.analysis.compare.lines import Line

DEFINITIONS = {
    "Score": "The metric over all held-out questions, per run; shares of right answers in per cent. ± is the standard "
    "deviation over seeds, with n − 1 in the denominator.",
    "Difference": "A method's score less the baseline's with the same seed (same order of the data, same held-out "
    "questions), averaged over the seeds that both have: the pairs. Where one of them has more seeds, it is not the "
    "difference of the two means in the table.",
    "95 % (t)": "Student's paired t interval of the mean difference over seeds. It says how far other seeds may move "
    "the difference on these very questions. Its p value is that of a true difference of zero. It takes at least two "
    "pairs; with two or three it is long.",
    "95 % (bootstrap)": f"The middle 95 % of {DRAWS:,} redrawn differences: seeds drawn with replacement, then "
    "questions with replacement, the same ones for both methods and for all seeds of a draw. It says how far other "
    "seeds and other questions of the same kind may move the difference. With few seeds, which it can only draw again, "
    "it knows less of their part than the t interval does.",
    "Verdict": "Better or worse: the t interval leaves zero out. Seeds only: the bootstrap interval does not, so the "
    "difference may be one of these questions. Unclear: the t interval holds zero, which is not evidence that the "
    "methods are equal.",
    "p (Holm)": "The p value after Holm's correction for all comparisons of the table.",
    "Parameters": "Of the adapter. Runs may train other parts beside it, such as projectors: see the runs.",
    "Time, of baseline": "Mean seconds of a run; the ratio is the median over pairs. Runs side by side on one machine "
    "slow each other down: read small ratios with care.",
    "Memory": "On a GPU the most that was allocated, on a CPU what one training step keeps for its backward pass; the "
    "largest over seeds.",
    "FLOPs/token": "What the adapter adds to a forward of training samples in plain torch, per position, padding "
    "included. At small ranks MokA multiplies there every token with the A of each modality and keeps its own; its "
    "kernels, which do not, are not counted.",
    "Interval of a mean": "In plots along an axis: Student's 95 % interval of the mean over seeds. Two that overlap "
    "may still differ clearly when paired by seed: the table decides.",
}


def tell_findings(lines: Sequence[Line]) -> list[str]:
    """Who is better, who is worse, who cannot be told apart, in sentences."""
    compared = [line for line in lines if line.difference]
    if not compared:
        return ["Nothing is compared: the baseline has no finished run with a seed of another method's."]
    name, told = against(lines), []
    for mood, words in (("better", "Better than"), ("worse", "Worse than"), ("unclear", "Not clearly different from")):
        found = [line for line in compared if line.mood == mood]
        if found:
            told.append(f"{words} {name}: {'; '.join(map(_one, found))}.")
        elif mood != "unclear":
            told.append(f"{words} {name}: none.")
    return [*told, *_after_holm(compared)]


def _one(line: Line) -> str:
    mean = formats.score(line.difference.mean, line.metric, sign=True) if line.difference else formats.NONE
    note = f", {line.verdict}" if line.verdict not in ("better", "worse", "unclear") else ""
    return f"{line.label} ({mean}{note})"


def _after_holm(compared: Sequence[Line]) -> list[str]:
    tested = [line for line in compared if line.p_adjusted is not None]
    clear = [line for line in tested if line.difference and line.difference.p is not None and line.difference.p < 0.05]
    if len(tested) < 2:
        return []
    left = sum(line.p_adjusted < 0.05 for line in clear if line.p_adjusted is not None)
    return [
        f"Of {len(clear)} differences with p below 0.05, {left} stay there after Holm's correction for the "
        f"{len(tested)} comparisons of this table."
    ]


def warn_of_many(tables: Sequence[Sequence[Line]]) -> str:
    """The paragraph on multiple comparisons."""
    count = sum(1 for lines in tables for line in lines if line.difference and line.difference.p is not None)
    return (
        f"This report tests {count} differences at 95 % each. Were no method different from its baseline at all, about "
        f"{count * 0.05:.1f} of them would still be expected to come out as better or worse by chance. Read a single "
        "clear difference among many as a hint, look at the column p (Holm), and confirm what matters with new seeds. "
        "The best of many methods looks better than it is, for having been picked; and several tables, axes or metrics "
        "that were looked at before one was reported count as comparisons, too."
    )
