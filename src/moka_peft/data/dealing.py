"""Deals samples to ranks: every one to exactly one rank, equal numbers, near-equal tokens, neighbours together."""

import numpy as np

from moka_peft.data.row_plan import pack_rows

Indices = np.ndarray  # int64 [N]


def shuffled_pieces(sizes: list[int], block: int, rng: np.random.Generator) -> Indices:
    """All indices 0..sum(sizes)-1 in an order that shuffles pieces of at most `block` neighbours.

    sizes: samples per shard; a piece never spans two. block 1: an ordinary permutation. Neighbours stay together
    because they are read together (a row group of a parquet file, a stretch of a tar file).
    """
    total = sum(sizes)
    if block == 1:
        return rng.permutation(total)
    edges: list[int] = np.cumsum([0, *sizes]).tolist()
    starts = [start for i in range(len(sizes)) for start in range(edges[i], edges[i + 1], block)]
    stops = [*starts[1:], total]
    order = rng.permutation(len(starts)).tolist()
    return np.concatenate([np.arange(starts[piece], stops[piece]) for piece in order])


def deal(order: Indices, tokens: np.ndarray | None, ranks: int, block: int) -> np.ndarray:
    """The rank of every position of `order` [N], as int32 [N]; numbers of positions per rank differ by 1 at most.

    Blocks of `block` positions go to one rank, the rest one by one. With `tokens` [number of indices] the largest
    block of each round goes to the rank that has least so far (as in longest-processing-time scheduling), so token
    sums differ by little; without, ranks take turns.
    """
    whole = len(order) // (ranks * block) * (ranks * block)
    load = np.zeros(ranks, dtype=np.int64)
    weights = np.ones(len(order), dtype=np.int64) if tokens is None else tokens[order].astype(np.int64)
    owners = _deal_rounds(weights[:whole].reshape(-1, block).sum(1), load, tokens is not None)
    singles = _deal_rounds(weights[whole:], load, tokens is not None)
    return np.concatenate([np.repeat(owners, block), singles])


def _deal_rounds(weights: np.ndarray, load: np.ndarray, by_weight: bool) -> np.ndarray:
    """The rank of each item [N]: in every round one item to each rank. Adds to `load` [ranks]."""
    ranks = len(load)
    owner = np.arange(len(weights), dtype=np.int32) % ranks
    if ranks == 1 or not by_weight:
        return owner
    heaviest_first = np.argsort(-weights, kind="stable")
    for start in range(0, len(weights), ranks):
        items = heaviest_first[start : start + ranks]
        lightest_first = np.argsort(load, kind="stable")[: len(items)]
        owner[items] = lightest_first
        load[lightest_first] += weights[items]
    return owner


def plan_rows(order: Indices, tokens: np.ndarray, capacity: int, window: int) -> tuple[list[Indices], list[int]]:
    """Packs samples into rows of at most `capacity` tokens, among `window` neighbours of `order` at a time.

    Returns the samples of every row, and how many rows each window gave.
    """
    rows: list[Indices] = []
    per_window = []
    for start in range(0, len(order), window):
        near = order[start : start + window]
        packed = pack_rows(np.clip(tokens[near], 1, capacity).tolist(), capacity)
        rows += [near[row] for row in packed]
        per_window.append(len(packed))
    return rows, per_window
