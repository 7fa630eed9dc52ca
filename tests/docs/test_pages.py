"""Commands in the pages compose, and the small examples run."""

import pathlib
import re
import runpy
import shlex
import sys

import numpy as np
import pytest

import jmarl
from docs.generate import transcripts
from docs.generate.site import fill
from jmarl.launchers.cluster import take_cluster


DOCS = pathlib.Path(__file__).parents[2] / "docs"
PAGES = sorted([*DOCS.rglob("*.md"), DOCS.parent / "README.md"])
OMITTED = (
    "resume=",
    "init_from=",
    "experiment=runs/",
    "--help",
    "<",
    "$",
    "reinforce",
    "rendezvous",
)
"""Parts of commands that need a run folder, have a placeholder, or use what a guide adds."""
TRAIN = re.compile(r"^\s*(?:python -m jmarl\.systems\.|jmarl train )(\w+) ?(.*)$")


def commands():
    for page in PAGES:
        folder = page.parent if page.stem == "README" else DOCS / "examples"
        text = page.read_text(encoding="utf-8").replace("\\\n", "")
        for line in text.splitlines():
            match = TRAIN.match(line.partition("  #")[0])
            if match and not any(word in line for word in OMITTED):
                yield pytest.param(
                    folder, *match.groups(), id=f"{page.stem}: {match[0].strip()}"
                )


@pytest.mark.parametrize(("folder", "system", "arguments"), commands())
def test_a_command_of_a_page_composes(folder, system, arguments, monkeypatch):
    """Scenario files of a page are in ``docs/examples``; README has paths from the root."""
    monkeypatch.chdir(folder)
    _, words = take_cluster(shlex.split(arguments))
    if "-m" in words:
        words = [re.sub(r"^([\w.]+=[^\[,]+),.*", r"\1", w) for w in words if w != "-m"]
        words = [re.sub(r"(\[[^\]]*\]),.*", r"\1", word) for word in words]
    config = jmarl.load_config(system, words)
    assert config.system_name == system


def test_the_training_function_example_reaches_the_optimum():
    names = runpy.run_path(str(DOCS / "examples" / "train_function.py"))
    assert names["returns"].shape == (3, names["config"].schedule.num_evaluations + 1)
    np.testing.assert_array_equal(names["returns"][:, -1], 1)


def test_the_reading_example_prints_each_evaluation(tmp_path, monkeypatch, capsys):
    rows = [
        '{"kind": "train", "env_steps": 5}',
        '{"kind": "eval", "env_steps": 4, "greedy/won": 0.125}',
        '{"kind": "eval", "env_steps": [5, 6], "greedy/won": [0.5, 0.25]}',
    ]
    (tmp_path / "metrics.jsonl").write_text("\n".join(rows) + "\n")
    monkeypatch.setattr(sys, "argv", ["read_run.py", str(tmp_path)])
    runpy.run_path(str(DOCS / "examples" / "read_run.py"))
    assert capsys.readouterr().out.splitlines() == [
        "       4 environment steps: win rate 0.125",
        "       5 environment steps: win rate 0.500",
        "       6 environment steps: win rate 0.250",
    ]


def test_every_transcript_is_recorded():
    for transcript in transcripts.TRANSCRIPTS:
        text = (DOCS / "transcripts" / f"{transcript.name}.txt").read_text()
        assert text.startswith(f"$ {transcripts.typed(transcript.command)}\n")
        assert "Traceback" not in text


def test_long_lines_of_a_transcript_are_continued():
    text = transcripts.wrap(" ".join(["word"] * 60))
    assert all(len(line) <= transcripts.WIDTH for line in text.splitlines())
    assert text.split() == ["word"] * 60


def test_navigation_entries_with_a_star_are_filled():
    paths = ["a/index.md", "a/one.md", "b.md"]
    nav = {"Part": [{"A": "a/*"}, {"B": "b.md"}]}
    assert fill(nav, paths) == {
        "Part": [{"A": ["a/index.md", "a/one.md"]}, {"B": "b.md"}]
    }
