"""Print the greedy win rate of each evaluation: ``read_run.py <run folder>``."""

import pathlib
import sys

from jmarl.results.metrics_file import read_rows


for row in read_rows(pathlib.Path(sys.argv[1], "metrics.jsonl")):
    if row["kind"] == "eval":
        for steps, won in zip(row["env_steps"], row["greedy/won"], strict=True):
            print(f"{steps:>8} environment steps: win rate {won:.3f}")
