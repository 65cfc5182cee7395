"""How much of what the data holds."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from training.data.schema import Row, row_langs


@dataclass
class DataStatistics:
    """Rows by task and dataset, texts by task and language."""

    rows: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    texts: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))

    def add(self, row: Row) -> None:
        """Count a row."""
        self.rows[row.task][row.dataset] += 1
        self.texts[row.task].update(row_langs(row))

    @property
    def languages(self) -> Counter[str]:
        """Texts by language over all tasks."""
        return sum(self.texts.values(), Counter())

    def as_dict(self) -> dict[str, dict[str, dict[str, int]]]:
        """Counts for JSON, most first."""
        return {
            "rows": {task: dict(counts.most_common()) for task, counts in self.rows.items()},
            "texts": {task: dict(counts.most_common()) for task, counts in self.texts.items()},
        }


def count_rows(rows: Iterable[Row]) -> DataStatistics:
    """Statistics of the rows."""
    statistics = DataStatistics()
    for row in rows:
        statistics.add(row)
    return statistics
