"""Children that are looked up instead of trained: NAS-Bench-201's table. Imports no torch."""

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from nasnet_zoo.errors import DataError
from nasnet_zoo.util.files import sha256_file

from .base import BaseChildSettings, ChildFailure


@dataclass(frozen=True)
class TableChildSettings(BaseChildSettings):
    """`data` is the table's CSV file; the columns are `table`-val and `table`-test."""

    task: Literal["nasbench201"] = "nasbench201"
    table: str = "cifar10"

    def summary(self) -> str:
        return "looked up in NAS-Bench-201"


class TableChild:
    """A row of a table with one cell per row (`cellstr`) and columns SET-val and SET-test, in percent."""

    def __init__(self, settings: TableChildSettings) -> None:
        self.path, self.set = settings.data, settings.table
        self.rows: dict[str, tuple[float, float]] | None = None

    def context(self) -> dict[str, str]:
        """The table's hash; nothing if there is no table, because `prepare` reports that."""
        return {"table": sha256_file(self.path)} if self.path and Path(self.path).is_file() else {}

    def prepare(self, device: str) -> None:
        if self.rows is None:
            self.rows = read_table(self.path, self.set)

    def __call__(self, architecture: str, seed: int) -> dict[str, Any]:
        if architecture not in self.rows:
            raise ChildFailure("error", f"the table has no cell {architecture}")
        validation, test = self.rows[architecture]
        return {"accuracy": validation / 100, "test_accuracy": test / 100}


def read_table(path: str | None, which: str) -> dict[str, tuple[float, float]]:
    """(validation, test) accuracy in percent of every cell; raises DataError."""
    if path is None:
        raise DataError("the task nasbench201 needs a table: name its CSV file with --data")
    columns = f"{which}-val", f"{which}-test"
    try:
        with Path(path).open(encoding="utf-8", newline="") as file:
            rows = csv.DictReader(file)
            if not {"cellstr", *columns} <= set(rows.fieldnames or ()):
                raise DataError(f"{path} has no columns cellstr, {' and '.join(columns)}: it is not such a table")
            return {row["cellstr"]: (float(row[columns[0]]), float(row[columns[1]])) for row in rows}
    except OSError as error:
        raise DataError(f"cannot read the table {path}: {error.strerror or error}") from error
    except (TypeError, ValueError, csv.Error) as error:
        raise DataError(f"the table {path} is damaged: {error}") from error
