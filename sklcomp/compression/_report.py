"""CompressionReport: size, speed and score before and after a compression.

Every compressor fills one, as its attribute ``report_``.
"""

import io
from dataclasses import dataclass
from html import escape
from typing import Any

import torch
from torch import Tensor, nn

from sklcomp.nn import count_macs, count_parameters, measure_latency
from sklcomp.nn._running import device_of


@dataclass(frozen=True, repr=False)
class CompressionReport:
    """Size, speed and score of a network before and after its compression.

    Attributes
    ----------
    before, after : dict of str to float
        "parameters", "MACs" of one example, "bytes" of the saved weights,
        "latency / ms" (median time of a forward on one example, one thread) and
        "score" on examples that were held out of the training of the compressed
        network; "training score" where none were. A pruner also calls it so where
        the network before may have been trained on them.
    note : str
        What became of the network in the end, and why; may be empty.

    Examples
    --------
    >>> from sklcomp.compression import CompressionReport
    >>> report = CompressionReport({"parameters": 100}, {"parameters": 25})
    >>> report
                before  after  after / before
    parameters     100     25           0.250
    """

    before: dict[str, float]
    after: dict[str, float]
    note: str = ""

    def ratio(self, row: str) -> float:
        """After divided by before; NaN where before is zero.

        Parameters
        ----------
        row : str
            One of the keys.

        Returns
        -------
        ratio : float
            Less than one is smaller.
        """
        return self.after[row] / self.before[row] if self.before[row] else float("nan")

    def to_frame(self) -> Any:
        """The report as a table.

        Returns
        -------
        frame : pandas.DataFrame of shape (n_rows, 3)
            Columns "before", "after", "after / before". Needs pandas.
        """
        import pandas as pd

        return pd.DataFrame(
            {
                "before": self.before,
                "after": self.after,
                "after / before": {row: self.ratio(row) for row in self.before},
            }
        )

    def _lines(self) -> list[tuple[str, str, str, str]]:
        def shown(value: float) -> str:
            return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"

        return [
            (row, shown(value), shown(self.after[row]), f"{self.ratio(row):.3f}")
            for row, value in self.before.items()
        ]

    def __repr__(self) -> str:
        lines = [("", "before", "after", "after / before"), *self._lines()]
        first, *others = (max(map(len, column)) for column in zip(*lines, strict=True))
        table = [
            "  ".join([row.ljust(first), *map(str.rjust, cells, others)])
            for row, *cells in lines
        ]
        return "\n".join([*table, self.note] if self.note else table)

    def _repr_html_(self) -> str:
        head = "<tr><th></th><th>before</th><th>after</th><th>after / before</th></tr>"
        rows = (
            "<tr><th>"
            + "</th><td>".join([line[0], "</td><td>".join(line[1:])])
            + "</td></tr>"
            for line in self._lines()
        )
        note = f"<p>{escape(self.note)}</p>" if self.note else ""
        return f"<table>{head}{''.join(rows)}</table>{note}"


def describe(module: nn.Module, example: Tensor) -> dict[str, float]:
    """Sizes of one side of a report; example holds one example."""
    example = example.to(device_of(module))
    # Of a saved file: names and shapes take room too, and most of a small network's.
    file = io.BytesIO()
    torch.save(module.state_dict(), file)
    return {
        "parameters": count_parameters(module),
        "MACs": count_macs(module, tuple(example.shape[1:])),
        "bytes": file.tell(),
        "latency / ms": 1e3 * measure_latency(module, example).median,
    }
