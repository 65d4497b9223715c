"""Which samples share a packed row: first-fit decreasing, a pure function of their lengths."""

from collections.abc import Sequence


def fill_rows(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """As `pack_rows`, or in order, where that takes no more rows: a batch that was planned as n rows then stays n."""
    packed = pack_rows(lengths, capacity)
    rows, room = [], 0
    for index, length in enumerate(lengths):
        if length > room:
            rows.append([])
            room = capacity
        rows[-1].append(index)
        room -= length
    return rows if len(rows) <= len(packed) else packed


def pack_rows(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Indices of samples per row, so that the lengths of a row sum to `capacity` at most.

    The longest are placed first, each into the first row with room (of equally long ones, the first index first);
    indices within a row ascend. O(n log n): 10^5 samples take about half a second. Raises ValueError where a sample
    is longer than a row.
    """
    lengths = [int(length) for length in lengths]
    for index, length in enumerate(lengths):
        if not 0 < length <= capacity:
            raise ValueError(
                f"`lengths[{index}]` does not fit a row: expected 1 to {capacity} tokens, got {length}. "
                "Leave the sample out, or raise the capacity."
            )
    room = _RoomTree(len(lengths), capacity)
    rows: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        row = room.first_with(lengths[index])
        if row == len(rows):
            rows.append([])
        rows[row].append(index)
        room.take(row, lengths[index])
    return [sorted(row) for row in rows]


class _RoomTree:
    """The room left in each row; a node holds the largest room below it, so the first row with enough of it is found
    in one descent. Rows that nothing was put into yet have all their room."""

    def __init__(self, rows: int, capacity: int):
        self.leaves = 1
        while self.leaves < rows:
            self.leaves *= 2
        self.room = [capacity] * (2 * self.leaves)

    def first_with(self, length: int) -> int:
        room, node = self.room, 1
        while node < self.leaves:
            node *= 2
            if room[node] < length:
                node += 1
        return node - self.leaves

    def take(self, row: int, length: int) -> None:
        room, node = self.room, row + self.leaves
        room[node] -= length
        while node > 1:
            node //= 2
            largest = max(room[2 * node], room[2 * node + 1])
            if room[node] == largest:
                return
            room[node] = largest
