"""Record the terminal output that the tutorials show: ``python -m docs.generate.transcripts``.

Every command runs once, in order, in one temporary folder. Its output replaces the file
``docs/transcripts/<name>.txt``. Paths of this machine do not appear in it.
"""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterable
from typing import NamedTuple


ROOT = pathlib.Path(__file__).parents[2]
FOLDER = ROOT / "docs" / "transcripts"
EXAMPLES = ROOT / "docs" / "examples"
WIDTH = 118
"""Columns of a transcript; longer lines are continued on the next line."""

SMALL = "total_timesteps=200_000 eval.every=40_000 eval.absolute_factor=4"
TRAIN = f"python -m jmarl.systems.ippo env=smax_3m {SMALL} run_dir=runs/first"
BATTLE = "python -m jmarl.systems.mappo env=battle env.scenario=outpost.yaml"
BATTLE_TRAIN = (
    f"{BATTLE} total_timesteps=160_000 eval.every=40_000 eval.absolute_factor=1 "
    "run_dir=runs/outpost"
)
OUTPOST = EXAMPLES / "outpost.yaml"
FEW_KEYS = EXAMPLES / "few_keys.yaml"
COMPARE = "jmarl compare 'results/learning/smax_5v5_*.json' threshold=0.5 out=figures"
TUNE = (
    "jmarl tune mappo env=smax_3m space=few_keys.yaml trials=8 total_timesteps=1e5 "
    "eval.every=2e4 eval.absolute_factor=4"
)
TUNE_STATUS = "jmarl tune status runs/tune/mappo/smax_3m"


class Transcript(NamedTuple):
    """A command as a reader types it, and how to run it here."""

    name: str
    command: str
    run: str = ""
    """Shell command that replaces ``command``; empty for the same."""


def mistake(name: str, edit: str) -> Transcript:
    """Return a run of the small battle after an edit of its file with ``sed``."""
    return Transcript(
        name, BATTLE, run=f"sed '{edit}' {OUTPOST} > outpost.yaml; {BATTLE}"
    )


TRANSCRIPTS = (
    Transcript("train", TRAIN),
    Transcript("folder", "ls runs/first"),
    Transcript("evaluate", "jmarl evaluate run=runs/first episodes=256"),
    Transcript("mistake", "python -m jmarl.systems.ippo env=smax_3m lr=0.01"),
    Transcript(
        "memory", "python -m jmarl.systems.ippo env=smax_3m num_envs=10_000_000"
    ),
    Transcript("metrics", "head -n 3 runs/first/metrics.jsonl"),
    Transcript(
        "read_run",
        "python read_run.py runs/first",
        run=f"python {EXAMPLES / 'read_run.py'} runs/first",
    ),
    Transcript("evaluation", "head -n 19 runs/first/evaluation.json"),
    Transcript(
        "train_function",
        "python train_function.py",
        run=f"python {EXAMPLES / 'train_function.py'}",
    ),
    Transcript(
        "interrupted",
        f"{TRAIN.replace('first', 'second')} ; echo exit code $?",
        run=(
            f"{TRAIN.replace('first', 'second')} & run=$!; "
            "until grep -qs '\"train\"' runs/second/metrics.jsonl; do sleep 1; done; "
            "kill -TERM $run; wait $run; echo exit code $?"
        ),
    ),
    Transcript("runs", "jmarl runs"),
    Transcript("resumed", "python -m jmarl.systems.ippo resume=runs/second"),
    Transcript("battle_train", BATTLE_TRAIN, run=f"cp {OUTPOST} . && {BATTLE_TRAIN}"),
    Transcript(
        "battle_resumed",
        "rm outpost.yaml; "
        "python -m jmarl.systems.mappo resume=runs/outpost total_timesteps=200_000",
    ),
    mistake("battle_unit", "s/marine/marines/"),
    mistake("battle_wall", "s/[[]9, 16[]]/[9, 26]/"),
    mistake("battle_key", "s/limit/limits/"),
    mistake("battle_field", "s/terrain: strip/units: {marine: {shields: 20}}/"),
    Transcript("compare", COMPARE, run=f"ln -s {ROOT / 'results'} . && {COMPARE}"),
    Transcript(
        "tune_status",
        TUNE_STATUS,
        run=f"cp {FEW_KEYS} . && {TUNE} &> log && {TUNE_STATUS}",
    ),
    Transcript("play", "jmarl play env=smac_2s3z,smac_3s_vs_5z"),
)


def main(names: Iterable[str]) -> None:
    """Record the named transcripts, or all; later ones may need the folder of earlier ones."""
    chosen = set(names) or {transcript.name for transcript in TRANSCRIPTS}
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        for transcript in TRANSCRIPTS:
            if transcript.name in chosen:
                text = record(transcript, folder)
                (FOLDER / f"{transcript.name}.txt").write_text(text, encoding="utf-8")


def record(transcript: Transcript, folder: str) -> str:
    """Run one command and return what a terminal would show."""
    environment = {**os.environ, "PATH": f"{bin_folder()}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-c", transcript.run or transcript.command],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return f"$ {typed(transcript.command)}\n{wrap(done.stdout)}"


def bin_folder() -> str:
    """Return the folder of this interpreter, for ``python`` and ``jmarl`` of a command."""
    return str(pathlib.Path(sys.executable).parent)


def typed(command: str) -> str:
    """Return a command, continued on the next line where it is too long."""
    lines = textwrap.wrap(command, WIDTH - 4, break_on_hyphens=False)
    return " \\\n    ".join(lines)


def wrap(text: str) -> str:
    """Break lines at ``WIDTH`` columns, as a terminal does, but between words if possible."""
    lines = []
    for line in text.splitlines():
        while len(line) > WIDTH:
            cut = line.rfind(" ", WIDTH // 2, WIDTH) + 1 or WIDTH
            lines.append(line[:cut].rstrip())
            line = f"    {line[cut:]}"
        lines.append(line)
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main(sys.argv[1:])
