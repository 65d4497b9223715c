"""Pairing two runs' answers to the same questions, and saying why they are not the same."""

from collections.abc import Collection, Mapping, Sequence

from moka_peft.evaluation.record import Record

SHOWN = 3


def pair_by_id(
    benchmark: str, runs: Mapping[str, Sequence[Record]], first: str, second: str
) -> list[tuple[Record, Record]]:
    """Each record of the first run with the second's, by id, in the first's order.

    Raises ValueError where they have no ids, or were not asked the same questions in the same words.
    """
    ours, theirs = _by_id(runs[first], first), _by_id(runs[second], second)
    _check_ids(benchmark, ours.keys() - theirs.keys(), theirs.keys() - ours.keys(), first, second)
    pairs = [(record, theirs[key]) for key, record in ours.items()]
    for one, other in pairs:
        for what in ("reference", "question"):
            expected, got = getattr(one, what), getattr(other, what)
            if expected != got:
                raise ValueError(
                    f"{other.where}: `{what}` of {one.id} is not that of {first}: expected {expected[:80]!r}, got "
                    f"{got[:80]!r}. Run `moka eval` for both on the same files with the same prompt."
                )
    return pairs


def _by_id(records: Sequence[Record], run: str) -> dict[str, Record]:
    found: dict[str, Record] = {}
    for record in records:
        if not record.id:
            raise ValueError(
                f"{record.where or run}: `id` is missing: expected one in each record of a comparison. Compare records "
                "that `moka eval` wrote."
            )
        if record.id in found:
            raise ValueError(f"{record.where or run}: `id` {record.id} is not the only one: expected each once.")
        found[record.id] = record
    return found


def _check_ids(
    benchmark: str, only_first: Collection[str], only_second: Collection[str], first: str, second: str
) -> None:
    told = [
        f"{len(ids):,} that only {run} has ({', '.join(sorted(ids)[:SHOWN])}{', ...' if len(ids) > SHOWN else ''})"
        for run, ids in ((first, only_first), (second, only_second))
        if ids
    ]
    if told:
        raise ValueError(
            f"{second} cannot be compared with {first} on {benchmark}: expected answers to the same questions, got "
            f"{' and '.join(told)}. Run `moka eval` for both on the same folder, with the same options and `--limit`."
        )
