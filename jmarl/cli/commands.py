"""The ``jmarl`` commands. They call functions that are also available from Python.

JAX and Hydra are imported only in commands that use them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import sys
import typing
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, NoReturn

from jmarl.cli.help import system_help, table
from jmarl.cli.process import (
    exit_code,
    exit_process,
    open_missing_streams,
    use_compile_cache,
    use_cores,
)
from jmarl.config import (
    ConfigError,
    RunConfig,
    build,
    read_value,
    split_argument,
    suggest,
)
from jmarl.config.choices import check_system, summary, systems
from jmarl.runs.exit_codes import ExitCode


class Command(NamedTuple):
    """A command of ``jmarl``."""

    run: Callable[[Sequence[str]], int]
    """Function of the arguments that returns the exit code."""
    help: str
    """Help text: usage, summary and arguments, separated by empty lines."""

    @property
    def summary(self) -> str:
        """One-line purpose."""
        return self.help.split("\n\n")[1]


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run ``jmarl <command> ...`` and exit with its exit code."""
    open_missing_streams()
    arguments = sys.argv[1:] if arguments is None else arguments
    exit_process(exit_code(lambda: dispatch(arguments)))


def dispatch(arguments: Sequence[str]) -> int:
    """Run a command or print help, and return the exit code.

    Raises:
        ConfigError: If the command is unknown or an argument is invalid.
    """
    if not arguments or arguments[0] in ("-h", "--help"):
        print(overview())
        return ExitCode.FINISHED
    name, *rest = arguments
    if name not in COMMANDS:
        fix = suggest(name, COMMANDS, "`jmarl --help` lists the known ones")
        raise ConfigError(f"{name}: unknown command; {fix}")
    if {"-h", "--help"} & set(rest):
        of_system = name == "train" and rest[0] in systems()
        print(system_help(rest[0]) if of_system else COMMANDS[name].help)
        return ExitCode.FINISHED
    return COMMANDS[name].run(rest)


def overview() -> str:
    """Return the text of ``jmarl --help``."""
    rows = {name: command.summary for name, command in COMMANDS.items()}
    return OVERVIEW.format(commands=table(rows))


def _train(arguments: Sequence[str]) -> int:
    from jmarl.cli.launch import launch
    from jmarl.runs.progress import optional_output

    if not arguments:
        raise ConfigError("train: names no system (jmarl systems lists them)")
    check_system(arguments[0], arguments[0])
    with optional_output():
        return launch(arguments[0], arguments[1:], train)


def train(config: RunConfig) -> int:
    """Train a run with ``jmarl.runs.run.run``, imported here so that help does not import JAX."""
    from jmarl.runs.run import run

    return run(config)


def _evaluate(arguments: Sequence[str]) -> int:
    from jmarl.saved.evaluate_saved import evaluate_run

    return _call(evaluate_run, arguments)


def _transfer(arguments: Sequence[str]) -> int:
    from jmarl.saved.transfer_grid import transfer

    return _call(transfer, arguments)


def _latents(arguments: Sequence[str]) -> int:
    from jmarl.saved.latents import latents_run

    return _call(latents_run, arguments)


def _render(arguments: Sequence[str]) -> int:
    from jmarl.saved.render import render_run

    return _call(render_run, arguments)


def _play(arguments: Sequence[str]) -> int:
    from jmarl.cli.play import PlayArguments, play

    use_cores()
    own, options = [], {}
    for argument in arguments:
        if argument.startswith(ENV_OPTION):
            key, text = split_argument(argument.removeprefix(ENV_OPTION))
            options[key] = read_value(ENV_OPTION + key, text)
        else:
            own.append(argument)
    return play(_read_arguments(PlayArguments, own), options)


def _scenario(arguments: Sequence[str]) -> int:
    from jmarl.cli.scenario_report import ScenarioArguments, report

    use_cores()
    return report(_read_arguments(ScenarioArguments, arguments))


def _call(function: Callable[..., int], arguments: Sequence[str]) -> int:
    """Call a function of a saved run with arguments ``key=value``, checked by its signature."""
    use_cores()
    given = _read_arguments(_keywords_class(function), arguments)
    keywords = dataclasses.asdict(given)
    _use_compile_cache_of(keywords["run"].partition(",")[0])
    return function(**keywords)


def _read_arguments(cls: Any, arguments: Sequence[str]) -> Any:
    """Read arguments ``key=value`` as a dataclass. The values of texts are taken as written."""
    hints = typing.get_type_hints(cls)
    given = {}
    for argument in arguments:
        key, text = split_argument(argument)
        given[key] = text if hints.get(key) is str else read_value(key, text)
    return build(cls, given)


def _use_compile_cache_of(run: str) -> None:
    from jmarl.runs.folder import find_folder, read_config

    with contextlib.suppress(ConfigError):  # raised again by the command itself
        use_compile_cache(read_config(find_folder("run", run)).arch)


def _keywords_class(function: Callable[..., Any]) -> type:
    """Return a dataclass with a function's parameters, so that ``build`` can check arguments."""
    hints = typing.get_type_hints(function)
    fields = []
    for name, parameter in inspect.signature(function).parameters.items():
        required = parameter.default is parameter.empty
        default = dataclasses.MISSING if required else parameter.default
        fields.append((name, hints[name], dataclasses.field(default=default)))
    return dataclasses.make_dataclass("Keywords", fields, frozen=True)


def _study(arguments: Sequence[str]) -> int:
    from jmarl.cli.study import study

    return study(arguments)


def _plan(arguments: Sequence[str]) -> int:
    from jmarl.forecast.plan_command import plan

    return plan(arguments)


def _tune(arguments: Sequence[str]) -> int:
    from jmarl.cli.tune import tune

    return tune(arguments)


def _systems(arguments: Sequence[str]) -> int:
    _check_no_arguments("systems", arguments)
    print(table({name: summary(name) for name in systems()}))
    return ExitCode.FINISHED


def _envs(arguments: Sequence[str]) -> int:
    from jmarl.envs import registry

    _check_no_arguments("envs", arguments)
    print(table(dict(registry.names())))
    patterns = [family.hint for family in registry.FAMILIES if family.hint]
    print(f"\nalso valid: {'; '.join(patterns)}")
    return ExitCode.FINISHED


def _runs(arguments: Sequence[str]) -> int:
    from jmarl.saved.list_runs import list_runs

    if len(arguments) > 1:
        raise ConfigError(f"{arguments[1]}: jmarl runs takes one folder")
    return list_runs(*arguments)


def _compare(arguments: Sequence[str]) -> int:
    from jmarl.cli.compare import compare

    return compare(arguments)


def _report(arguments: Sequence[str]) -> int:
    from jmarl.cli.compare import report

    return report(arguments)


def _doctor(arguments: Sequence[str]) -> int:
    from jmarl.cli.doctor import doctor

    _check_no_arguments("doctor", arguments)
    use_cores()
    return doctor()


def _check_no_arguments(command: str, arguments: Sequence[str]) -> None:
    if arguments:
        raise ConfigError(f"{arguments[0]}: jmarl {command} takes no arguments")


ENV_OPTION = "env."
"""Start of arguments that are options of an environment."""
OVERVIEW = """\
usage: jmarl <command> [arguments]   (or: python -m jmarl <command> [arguments])

commands:
{commands}

`jmarl <command> --help` describes a command.
Example: jmarl train <system> env=smax_10v10"""

COMMANDS = {
    "train": Command(
        _train,
        """\
usage: jmarl train <system> [options] [group=choice ...] [key=value ...]

train a system; same as python -m jmarl.systems.<system>

`jmarl systems` lists the systems. launcher=slurm sends the runs to Slurm, see docs/how-to/slurm.md.
`jmarl train <system> --help` lists the options, groups and keys of a system.""",
    ),
    "evaluate": Command(
        _evaluate,
        """\
usage: jmarl evaluate run=<folder> [key=value ...]

evaluate the saved parameters of a run, greedy and sampled, with 95 % intervals

  run=<folder>      run folder; it may have been moved
  episodes=640      episodes of each mode, exactly one in each environment
  parameters=best   best: of each seed's best evaluation; latest: of the newest checkpoint
  seed=0            seed of the episodes
  json=<file>       also write the results to this file""",
    ),
    "transfer": Command(
        _transfer,
        """\
usage: jmarl transfer run=<folder> (envs=<name>,... | grid=<name>) [key=value ...]

evaluate the saved parameters of a run in other environments, unchanged (zero-shot)

  run=<folder>      run folder; it may have been moved. With grid also several folders
  envs=<name>,...   environments whose parameters have the same shapes: smax_5v5,smax_10v10
  grid=<name>       environments by team: battle_small, smac_MMM2, smacv2_terran, smax, or the
                    path of a YAML file; prints win rate and retention over the seeds
  episodes=640      episodes of each mode in each of these environments
  parameters=best   best: of each seed's best evaluation; latest: of the newest checkpoint
  seed=0            seed of the episodes
  json=<file>       also write the results to this file; default of a grid:
                    <folder>/grid_<name>.json, with a heat map next to it as .png""",
    ),
    "latents": Command(
        _latents,
        """\
usage: jmarl latents run=<folder> [key=value ...]

report what the latents of a run of shppo encode, beside a shuffled control

  run=<folder>      run folder; it may have been moved
  episodes=256      sampled episodes to record
  parameters=best   best: of the best evaluation; latest: of the newest checkpoint
  learner=0         index of the run's seed, counted from 0
  seed=0            seed of the episodes
  out=<folder>      folder for latents.json, latents.png and latents.npz; default: the run folder

The report has principal components, the silhouette by unit class, and linear probes of the unit
class and of retreating (moving away from the enemies), tested on held-out episodes.""",
    ),
    "render": Command(
        _render,
        """\
usage: jmarl render run=<folder> [key=value ...]

write an episode with the saved parameters of a run as GIF, MP4 or HTML, or one frame as PNG

  run=<folder>      run folder; it may have been moved
  file=<file>       .gif, .html (a page that plays in a browser), .mp4 (requires the extra
                    jmarl[video]), or .png; default: <folder>/episode.gif
  step=0            step that a .png shows
  parameters=best   best: of the best evaluation; latest: of the newest checkpoint
  learner=0         index of the run's seed, counted from 0
  seed=0            seed of the episode
  greedy=true       false: sample actions""",
    ),
    "play": Command(
        _play,
        """\
usage: jmarl play env=<name>[,<name>...] [key=value ...]

evaluate scripted players, with 95 % intervals

  env=<name>,...      environments, such as smac_MMM2,smacv2_terran_5v5
  player=<name>,...   players of the environment; default: all of them
  episodes=512        episodes of each player, exactly one in each environment of the batch
  seed=0              seed of the episodes
  json=<file>         also write the results to this file
  file=<file>         also draw the first episode: .gif, .html, .png or .mp4 (jmarl[video])
  env.<option>=...    option of the environments, such as env.opponent=healer_first

Battles have the players random, nearest, focus and kite. Football has random, builtin_ai and
[pass_then_]run_shoot_<R>[_nosprint], such as run_shoot_0.3. Other environments have random. Players
share one compiled program in each environment.""",
    ),
    "scenario": Command(
        _scenario,
        """\
usage: jmarl scenario file=<yaml> [key=value ...]

check a scenario file, and write its roster, players' win rates, a preview and an episode

  file=<yaml>       battle of your own, see docs/how-to/write-a-battle.md
  out=<folder>      folder for the results; default: the name of the file
  player=focus      player of the drawn episode: random, nearest, focus or kite
  episodes=512      episodes of each player; 0 leaves out their win rates
  seed=0            seed of the episodes""",
    ),
    "runs": Command(
        _runs,
        """\
usage: jmarl runs [folder]

list the runs below a folder: state, progress, last evaluation, and how to resume

  folder            folder to search, or a run folder; default: runs

The state killed means that the process ended without recording its end, for example by
SIGKILL or a power failure.""",
    ),
    "compare": Command(
        _compare,
        """\
usage: jmarl compare <glob> ... [key=value ...]
       jmarl compare <group>=<glob> ... [key=value ...]

compare groups of runs over seeds: tables, intervals and figures

  <glob>            run folders, folders above them, or records such as 'results/learning/*.json'
  <group>=<glob>    runs of a named group
  metric=won        metric of an episode; higher is better. Default: won, or return if no run
                    has a win rate
  by=system         column that divides the runs: system, overrides, config, commit, versions, run
                    or group
  mode=greedy       greedy or sampled episodes
  env=<name>        environment, if the runs have several
  across=env        aggregate over all environments, with seeds as strata
  threshold=0.8     value to reach, for environment steps and wall time; for win rates 0.8
  against=<group>   group that the others are compared with; default: the first one
  margin=<value>    largest loss that counts as equal, chosen before the runs (non-inferiority)
  resamples=2000    bootstrap samples
  seed=0            seed of the bootstrap
  out=<folder>      folder for compare.json and the figures, as PNG and SVG

Unfinished, failed and duplicate runs are left out, and named below the tables.""",
    ),
    "report": Command(
        _report,
        """\
usage: jmarl report <glob> ... [out=report.html] [key=value ...]
       jmarl report <group>=<glob> ... [out=report.html] [key=value ...]

write one HTML page about runs that opens offline: statistics, figures, configurations, episodes

  <glob>            run folders, folders above them, or records; also runs=<glob>
  <group>=<glob>    runs of a named group
  out=report.html   file of the page
  episodes_mb=20    largest size of all rendered episodes on the page, in MiB; 0 for none
  <key>=<value>     key of the statistics, as of jmarl compare: metric, by, mode, env, across,
                    threshold, against, margin, resamples, seed

Episodes are those that jmarl render wrote to the run folders as .html or .gif. Unfinished, failed
and duplicate runs are named at the top of the page.""",
    ),
    "study": Command(
        _study,
        """\
usage: jmarl study [list | <action> <study>] [key=value ...]

train the runs of a study, measure them, and write its report

  list                    list the studies and their questions; the default
  run <study>             train and measure what is missing, then report; continues if repeated
  status <study>          print the state and the progress of each run
  report <study>          print the tables again, from the run folders and records
  measure <study>         measure finished runs again
  record <study>          write the records of finished runs, to publish them or to go on elsewhere
  out=<folder>            folder of the study; default: runs/studies/<study>
  records=results/studies
                          run, status, report: folder of the records of all studies, or none; a
                          cell with a complete record that is not stale counts as finished
  jobs=1                  run: number of runs that are trained at a time
  launcher=local          run: slurm sends the jobs to Slurm, see docs/how-to/slurm.md
  max_hours=<hours>       run: save and stop after this time
  cell=<name>             measure: only this run
  to=results/studies      record: folder of the records of all studies
  <key>=<value>           run: override of every run, such as num_seeds=1 or total_timesteps=1e5

<study> is a name or the path of a YAML file, see docs/how-to/study.md. The report is also written
to report.json and report.png.""",
    ),
    "plan": Command(
        _plan,
        """\
usage: jmarl plan <system> target=<device> [env=<name>] [key=value ...]

compile a run for a GPU or TPU that is not there, and print its memory, its kernels and a forecast

  target=h100           device: h100, h200, a100, l4, t4, v5e, v6e; several: h100:8, v5e:2x4
  plan=sweep            a table of 256 to 16384 environments instead
  json=true             print the figures as one line of JSON
  <key>=<value>         override of the run, such as num_envs=4096 or network=gru

Kernels are counted in the program that XLA compiles for the device. Speeds are estimates. The exit
code is 3 if the run does not fit into the memory of the device. XLA's compilers come with
jmarl[plan-gpu] and jmarl[plan-tpu], see docs/how-to/plan.md.""",
    ),
    "tune": Command(
        _tune,
        """\
usage: jmarl tune <system> env=<name> [key=value ...]
       jmarl tune status <folder>

search hyper-parameters with Optuna: trials are runs, and the best one becomes a preset

  trials=40             number of trials, including pruned and failed ones; may be raised later
  seeds=2               seeds of each trial, trained at once; the metric is their mean
  space=<name>          search space: mam_ppo, ppo, pqn, replay, or the path of a YAML file
  pruner=median         rule that stops trials at an evaluation: median, hyperband or none
  warmup=1              first evaluations after training starts at which no trial is pruned
  metric=won            result of an episode to maximize; default: won, or return without a winner
  mode=greedy           greedy or sampled episodes
  protocol=mam          options and overrides of a tuning: mam, small, or the path of a YAML file
  seed=0                first seed of each trial, and seed of the sampler
  jobs=1                trials at a time; the command can also be started several times
  launcher=local        slurm: send the trials to Slurm, see docs/how-to/slurm.md
  max_hours=<hours>     save and stop after this time
  out=<folder>          folder of the tuning; default: runs/tune/<system>/<env>
  preset=<file>         also write the winner's preset to this file
  <key>=<value>         override of every run, such as total_timesteps=1e6 or network=gru

The same command continues after an interruption. The folder gets tuning.json, history.png and
best.yaml, which is for jmarl train <system> experiment=<folder>/best.yaml. Optuna comes with
jmarl[tune], see docs/how-to/tune.md.""",
    ),
    "systems": Command(_systems, "usage: jmarl systems\n\nlist the systems"),
    "envs": Command(_envs, "usage: jmarl envs\n\nlist the environments"),
    "doctor": Command(
        _doctor,
        "usage: jmarl doctor\n\nprint versions and devices, and check the installation",
    ),
}
