"""Tables of what was computed from saved runs: zero-shot grids and latents."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from docs.generate.markdown import fence, join, table
from docs.generate.tables.records import Record
from jmarl.results.grid_table import grid_rows, heading, notes


BLANK = " "
"""Text of a cell that has no value by design; an empty text would be *not recorded*."""
LATENTS = """\
`jmarl latents` plays episodes with a trained run of SHPPO, and looks for information in the latents
of living agents ([explanation](../explanation/heterogeneous-teams.md)). Probes are linear. Their
accuracy is balanced, so chance is 0.5 for two classes, and held out by episode. A control is the
same probe after training on shuffled labels: the mean and the 95th percentile of 100 shuffles. The
run is `shppo` of [`learning/heterogeneous`](learning.md): marines are class 1, medivacs class 2."""
GRIDS = """\
[`jmarl transfer grid=`](../how-to/transfer.md) evaluates trained parameters, unchanged, in teams of
other sizes. `*` marks the training environment. A red frame marks it in the heat map. The runs are
those of [`learning/heterogeneous`](learning.md), and `shppo_no_layer` is
`shppo:system.hete=false`."""


def grids(records: Sequence[Record]) -> str:
    """Return the table of each grid, as ``jmarl transfer`` prints it."""
    return join(GRIDS, *(grid(record.data) for record in records))


def grid(data: dict[str, Any]) -> str:
    """Return heading, table and notes of a grid."""
    (_, *header), *rows = grid_rows(data)
    name, *about = heading(data)
    cells = [
        [" ".join(filter(None, (env, mark))), *(text or BLANK for text in rest)]
        for mark, env, *rest in rows
    ]
    return join(
        f"## {name}", fence("\n".join(about)), table(header, cells), *notes(data)
    )


def latents(records: Sequence[Record]) -> str:
    """Return one table of the probes of all records, and one of the principal components."""
    header = (
        "seed",
        "of",
        "silhouette by class",
        "label",
        "classes",
        "probe",
        "control",
        "95th percentile",
    )
    probes = [row for record in records for row in probe_rows(record.data)]
    shares = [row for record in records for row in share_rows(record.data)]
    counts = ", ".join(
        f"seed {r.data['seed']}: {r.data['episodes']:,} episodes, {r.data['rows']:,} rows"
        for r in records
    )
    return join(
        LATENTS,
        f"{counts}.",
        "## Clusters and probes",
        table(header, probes),
        "## Variance of the principal components",
        table(("seed", "of", "shares, in descending order"), shares),
    )


def probe_rows(data: Mapping[str, Any]) -> Iterator[tuple[Any, ...]]:
    """Yield one row for mu and for the latents, and each label."""
    for name in ("mu", "latent"):
        for label in ("unit_class", "retreating"):
            found = data[name][label]
            numbers = map(
                decimals, (found["accuracy"], found["shuffled"], found["shuffled_95"])
            )
            silhouette = decimals(data[name]["silhouette"])
            yield str(data["seed"]), name, silhouette, label, found["classes"], *numbers


def share_rows(data: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """Yield the share of the variance of each component, for mu and for the latents."""
    for name in ("mu", "latent"):
        shares = ", ".join(map(decimals, data[name]["explained_variance"]))
        yield str(data["seed"]), name, shares


def decimals(value: float | None) -> str:
    """Return a number with three decimals."""
    return "undefined" if value is None else f"{value:.3f}"
