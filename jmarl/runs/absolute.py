"""The absolute metric at the end of a run."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from jmarl.hosts.process_group import writer_only
from jmarl.results import tables
from jmarl.results.files import write_json
from jmarl.runs.loop import Progress, RunContext, log_absolute
from jmarl.training.programs import FIRST_ABSOLUTE_KEY, State


def absolute_metric(ctx: RunContext, state: State, progress: Progress) -> str:
    """Evaluate each seed's best parameters on ``eval.absolute_factor`` times the episodes.

    Gorsane et al. 2022 (arXiv:2209.10485), section 4. All episodes are fresh. Writes
    ``evaluation.json`` and a row of metrics.

    Returns:
        The results as a table. After a stop request the table is empty and nothing is
        written; a resumed run repeats the whole evaluation.
    """
    best, parts = state.best, []
    for i in range(ctx.config.eval.absolute_factor):
        if ctx.stop():
            return ""
        keys = ctx.keys.of_evaluation(FIRST_ABSOLUTE_KEY + i)
        _, on_device = ctx.programs.evaluate(best, best.params, keys, progress.update)
        parts.append(jax.device_get(on_device))
    results = jax.tree.map(lambda *x: np.concatenate(x, axis=-1), *parts)
    log_absolute(ctx, progress, results)
    episodes = ctx.config.eval.absolute_factor * ctx.config.eval.episodes
    record = tables.evaluation_record(ctx.config.seeds, episodes, best.update, results)
    if ctx.checkpoints:
        ctx.checkpoints.wait()  # the remains of a failed write take space
    try:
        _write(ctx, record)
    except OSError as error:
        ctx.reporter.warn(f"evaluation.json not written: {error.strerror}")
    return tables.record_table("best", record)


@writer_only
def _write(ctx: RunContext, record: dict[str, Any]) -> None:
    write_json(ctx.folder / "evaluation.json", record)
