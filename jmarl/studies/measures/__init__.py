"""Measures of studies: functions of a saved run that return numbers for each seed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from jmarl.config import build, check, suggest
from jmarl.runs.folder import read_config
from jmarl.studies.measures import (
    cgi_gradients,
    policy_distance,
    team_changes,
    zero_shot_results,
)
from jmarl.studies.measures.saved_run import SavedRun
from jmarl.studies.results import write_measures
from jmarl.studies.study_file import Part, Study
from jmarl.training.build import build_run


class Measure(NamedTuple):
    """A measure of a finished run."""

    options: type
    """Dataclass of its options."""
    run: Callable[[SavedRun, Any], dict[str, Any]]
    """Function of a saved run and the options that returns metrics ``[S]`` by name."""


MEASURES = {
    "cgi_gradients": Measure(cgi_gradients.Options, cgi_gradients.measure),
    "policy_distance": Measure(policy_distance.Options, policy_distance.measure),
    "team_changes": Measure(team_changes.Options, team_changes.measure),
    "zero_shot": Measure(zero_shot_results.Options, zero_shot_results.measure),
}


def check_measure(study: Study) -> None:
    """Raise ``ConfigError`` if a study names an unknown measure or option."""
    if study.measure:
        _find(study.measure)


def measure_run(study: Study, folder: Path) -> None:
    """Measure a finished run and write ``measures.json`` into its folder.

    Args:
        study: A study with a measure.
        folder: Folder of the run.

    Raises:
        ConfigError: If the run does not have what is measured.
    """
    assert study.measure is not None
    measure, options = _find(study.measure)
    saved = SavedRun(folder, build_run(read_config(folder)))
    write_measures(folder, study.measure, measure.run(saved, options))


def _find(part: Part) -> tuple[Measure, Any]:
    fix = suggest(part.name, MEASURES, f"known: {', '.join(MEASURES)}")
    check(part.name in MEASURES, "measure.name", part.name, f"unknown measure; {fix}")
    measure = MEASURES[part.name]
    return measure, build(measure.options, part.options, "measure.options")
