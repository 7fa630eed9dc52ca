"""Print the greedy win rate of each evaluation: ``read_run.py <run folder>``."""

import json
import pathlib
import sys


path = pathlib.Path(sys.argv[1], "metrics.jsonl")
rows = [json.loads(line) for line in path.read_text().splitlines()]
for row in rows:
    if row["kind"] == "eval":
        for steps, won in zip(row["env_steps"], row["greedy/won"], strict=True):
            print(f"{steps:>8} environment steps: win rate {won:.3f}")
