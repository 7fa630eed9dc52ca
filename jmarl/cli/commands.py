"""The verbs of ``jmarl``: thin shells over functions that Python users call directly.

Importing this, and answering ``--help``, takes neither JAX nor Hydra.
"""

from __future__ import annotations

import dataclasses
import inspect
import sys
import typing
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, NoReturn

from jmarl.cli.help import system_help, table
from jmarl.cli.launch import exit_code, launch, train, use_cores
from jmarl.config import ConfigError, build, nearest, read_value
from jmarl.config.choices import summary, systems


class Command(NamedTuple):
    """``run(arguments) -> exit code``; ``help`` is the usage, of which ``jmarl --help`` shows the second line."""

    run: Callable[[Sequence[str]], int]
    help: str


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Carry out ``jmarl <verb> ...``; exits with its exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    sys.exit(exit_code(lambda: dispatch(arguments)))


def dispatch(arguments: Sequence[str]) -> int:
    """Find the verb and run it, or print help. Raises ``ConfigError`` for a verb that does not exist."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(overview())
        return 0
    name, *rest = arguments
    if name not in COMMANDS:
        raise ConfigError(
            f"{name}: no such verb; the nearest is {nearest(name, COMMANDS)} (see jmarl --help)"
        )
    if {"-h", "--help"} & set(rest):
        print(
            system_help(rest[0])
            if name == "train" and rest[0] in systems()
            else COMMANDS[name].help
        )
        return 0
    return COMMANDS[name].run(rest)


def overview() -> str:
    """What ``jmarl --help`` prints."""
    rows = {name: verb.help.splitlines()[2] for name, verb in COMMANDS.items()}
    return "\n".join(
        [
            "usage: jmarl <verb> ...   (also: python -m jmarl <verb> ...)",
            "",
            *table(rows),
            "",
            "jmarl <verb> --help says more. Train the main system with: jmarl train mam_ppo env=smax_10v10",
        ]
    )


def _train(arguments: Sequence[str]) -> int:
    if not arguments or arguments[0] not in systems():
        named = arguments[0] if arguments else "train"
        raise ConfigError(
            f"{named}: name a system first; the nearest is {nearest(named, systems())} (see jmarl systems)"
        )
    return launch(arguments[0], arguments[1:], train)


def _evaluate(arguments: Sequence[str]) -> int:
    from jmarl.runs.evaluate_saved import evaluate_run

    return _call(evaluate_run, arguments)


def _transfer(arguments: Sequence[str]) -> int:
    from jmarl.runs.evaluate_saved import transfer_run

    return _call(transfer_run, arguments)


def _render(arguments: Sequence[str]) -> int:
    from jmarl.runs.render import render_run

    return _call(render_run, arguments)


def _call(function: Callable[..., int], arguments: Sequence[str]) -> int:
    """Call a function that trains nothing with ``key=value`` arguments, checked by its signature."""
    use_cores()
    hints = typing.get_type_hints(function)

    def read(key: str, text: str) -> Any:
        return text if hints.get(key) is str else read_value(key, text)

    given = {
        key: read(key, value)
        for key, _, value in (argument.partition("=") for argument in arguments)
    }
    return function(**dataclasses.asdict(build(_keywords(function), given)))


def _keywords(function: Callable[..., Any]) -> type:
    """The parameters of a function as a dataclass, for ``build`` to check arguments by."""
    hints = typing.get_type_hints(function)
    fields = [
        (
            p.name,
            hints[p.name],
            dataclasses.field(
                default=dataclasses.MISSING if p.default is p.empty else p.default
            ),
        )
        for p in inspect.signature(function).parameters.values()
    ]
    return dataclasses.make_dataclass("Keywords", fields, frozen=True)


def _systems(arguments: Sequence[str]) -> int:
    _no_arguments("systems", arguments)
    print("\n".join(table({name: summary(name) for name in systems()})))
    return 0


def _envs(arguments: Sequence[str]) -> int:
    from jmarl.envs import registry

    _no_arguments("envs", arguments)
    print("\n".join(table(dict(registry.names()))))
    hints = [family.hint for family in registry.FAMILIES if family.hint]
    print(f"\nalso: {'; '.join(hints)}")
    return 0


def _doctor(arguments: Sequence[str]) -> int:
    from jmarl.cli.doctor import doctor

    _no_arguments("doctor", arguments)
    use_cores()
    return doctor()


def _no_arguments(verb: str, arguments: Sequence[str]) -> None:
    if arguments:
        raise ConfigError(f"{arguments[0]}: jmarl {verb} takes no arguments")


COMMANDS = {
    "train": Command(
        _train,
        """\
usage: jmarl train <system> [group=choice ...] [key=value ...] [-m]

train a system; the same as python -m jmarl.systems.<system>

jmarl train <system> --help lists the groups and keys of a system, jmarl systems the systems.""",
    ),
    "evaluate": Command(
        _evaluate,
        """\
usage: jmarl evaluate run=<run folder> [episodes=N] [parameters=best|latest] [seed=N] [json=<file>]

judge the parameters that a run saved, greedily and sampled, with 95 % intervals

  run=<run folder>   the folder that the run printed, wherever it lies now
  episodes=640       episodes of each kind, exactly one in each environment
  parameters=best    best: those of each seed's best evaluation; latest: those of the newest checkpoint
  seed=0             another seed plays other episodes
  json=<file>        write the results there too""",
    ),
    "transfer": Command(
        _transfer,
        """\
usage: jmarl transfer run=<run folder> envs=<name>,... [episodes=N] [parameters=best|latest] [seed=N] [json=<file>]

judge the parameters that a run saved in other worlds, as they are (zero-shot), in one table

  run=<run folder>   the folder that the run printed, wherever it lies now
  envs=<names>       worlds that need parameters of the same shapes, such as smax_5v5,smax_10v10,smax_20v20
  episodes=640       episodes of each kind in each world, exactly one in each environment
  parameters=best    best: those of each seed's best evaluation; latest: those of the newest checkpoint
  seed=0             another seed plays other episodes
  json=<file>        write the results there too""",
    ),
    "render": Command(
        _render,
        """\
usage: jmarl render run=<run folder> [file=<name>.gif] [parameters=best|latest] [seed=N] [greedy=true]

play an episode with the parameters that a run saved, and write it as GIF or MP4

  run=<run folder>   the folder that the run printed, wherever it lies now
  file=episode.gif   where to write it, .gif or .mp4 (which needs the extra jmarl[video]); by default in the run folder
  parameters=best    best: those of the best evaluation; latest: those of the newest checkpoint
  learner=0          which of the run's seeds, counted from 0
  seed=0             another seed plays another episode
  greedy=true        false: with sampled actions""",
    ),
    "systems": Command(
        _systems, "usage: jmarl systems\n\nlist the algorithms, one line each"
    ),
    "envs": Command(_envs, "usage: jmarl envs\n\nlist the environments, one line each"),
    "doctor": Command(
        _doctor,
        "usage: jmarl doctor\n\nprint versions and devices, and test in seconds that they work",
    ),
}
