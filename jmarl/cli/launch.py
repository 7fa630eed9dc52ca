"""``python -m jmarl.systems.<name>``: from the arguments of a command line to finished runs."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

from jmarl.config import ArchConfig, ConfigError, RunConfig, check
from jmarl.runs.exit_codes import PREEMPTED


USER_ERROR = 2
INTERRUPTED = 130
EXIT_BROKEN_PIPE = 141


def main(system: str, arguments: Sequence[str] | None = None) -> NoReturn:
    """Train ``system`` as the arguments say, or print its help; exits with the run's exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    asked = {"-h", "--help"} & set(arguments)
    sys.exit(
        exit_code(lambda: _help(system) if asked else launch(system, arguments, train))
    )


def _help(system: str) -> int:
    from jmarl.cli.help import system_help

    print(system_help(system))
    return 0


def exit_code(command: Callable[[], int]) -> int:
    """Run a command; an error of the user's is one line on stderr and code 2, a reader who left is no error."""
    try:
        code = command()
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        # else Python reports it once more, as it flushes at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_BROKEN_PIPE
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return USER_ERROR
    except KeyboardInterrupt:
        return INTERRUPTED


def launch(
    system: str, arguments: Sequence[str], run: Callable[[RunConfig], int]
) -> int:
    """Give ``run`` the configuration that the arguments describe, or each of several with ``-m``.

    Returns the exit code, of several jobs the first that is not 0. A job that was preempted ends
    the others too. Raises ``ConfigError``.
    """
    use_cores()
    resumed = [a.partition("=")[2] for a in arguments if _key(a) == "resume"]
    if resumed and resumed[-1]:
        config = _resumed(
            system, resumed[-1], [a for a in arguments if _key(a) != "resume"]
        )
        use_compile_cache(config.arch)
        return run(config)
    codes: list[int] = []
    folders: set[str] = set()

    def job(config: RunConfig) -> None:
        rule = "each job of a sweep needs a folder of its own; leave it empty or name keys in it: out/${seed}"
        check(
            not config.run_dir or config.run_dir not in folders,
            "run_dir",
            config.run_dir,
            rule,
        )
        folders.add(config.run_dir)
        use_compile_cache(config.arch)
        codes.append(run(config))
        if codes[-1] == PREEMPTED:
            raise SystemExit(PREEMPTED)

    _through_hydra(system, arguments, job)
    return next((code for code in codes if code), 0)


def _key(argument: str) -> str:
    """The key of ``key=value``, ``+key=value`` and ``++key=value``."""
    return argument.partition("=")[0].lstrip("+")


def _resumed(system: str, folder: str, arguments: Sequence[str]) -> RunConfig:
    from jmarl.runs.folder import resume_config

    flags = [a for a in arguments if a.startswith("-")]
    check(not flags, "resume", folder, f"does not go together with {' '.join(flags)}")
    config = resume_config(folder, arguments)
    check(
        config.system_name == system,
        "resume",
        folder,
        f"is a run of {config.system_name}, not of {system}",
    )
    return config


def _through_hydra(
    system: str, arguments: Sequence[str], job: Callable[[RunConfig], None]
) -> None:
    """Let Hydra compose the configuration of each job and call it; its exceptions come out as they are."""
    import hydra

    from jmarl.config.choices import configs_dir
    from jmarl.config.compose import HYDRA_VERSION, finish, one_line_errors, prepare

    raised: list[Exception] = []

    def task(composed: Any) -> None:
        with _argv(argv):
            try:
                _announce()
                config, picked = finish(system, composed)
                if picked:
                    print(
                        f"arch={composed.arch.name} chose {', '.join(picked)}",
                        flush=True,
                    )
                job(config)
            except Exception as error:
                raised.append(error)
                raise SystemExit(1) from error

    argv = sys.argv
    program = hydra.main(
        config_path=str(configs_dir()), config_name="run", version_base=HYDRA_VERSION
    )(task)
    overrides = prepare(system, arguments)
    flags = [a for a in overrides if "=" not in a]
    with (
        one_line_errors(),
        _argv([argv[0], *flags, *(a for a in overrides if "=" in a)]),
        _full_errors(),
    ):
        try:
            program()
        except SystemExit:
            if raised:
                raise raised[0] from None
            raise


def train(config: RunConfig) -> int:
    """``jmarl.runs.run.run``, imported when the first job is ready."""
    from jmarl.runs.run import run

    return run(config)


MOST_CPU_DEVICES = 4
"""Two were measured. Each gets whole environments, of which a minibatch has few."""


def use_cores() -> None:
    """Split a CPU into a device for each of its cores, 1, 2 or ``MOST_CPU_DEVICES``.

    Environments are split over devices, and a core is used better by environments of its own than by its
    share of every small product. The environment variable ``JAX_NUM_CPU_DEVICES`` decides otherwise. Without
    effect once JAX has started, as in the second job of a sweep.
    """
    import jax

    if (
        "JAX_NUM_CPU_DEVICES" in os.environ
        or "host_platform_device_count" in os.environ.get("XLA_FLAGS", "")
    ):
        return
    with contextlib.suppress(RuntimeError):
        jax.config.update(
            "jax_num_cpu_devices",
            max(n for n in (1, 2, MOST_CPU_DEVICES) if n <= max(1, cores())),
        )


def cores() -> int:
    """Cores that this process may keep busy: those it is bound to, or fewer by the quota of its control group."""
    bound = (
        len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count() or 1
    )
    with contextlib.suppress(OSError, ValueError):
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return min(bound, int(quota) // int(period))
    return bound


def use_compile_cache(arch: ArchConfig) -> None:
    """Keep compiled programs from one process to the next, unless the user's environment says where."""
    import jax

    if arch.compile_cache and "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        jax.config.update(
            "jax_compilation_cache_dir", str(Path(arch.compile_cache).expanduser())
        )


def _announce() -> None:
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    about = HydraConfig.get()
    if about.mode == RunMode.MULTIRUN:
        print(
            f"\njob {about.job.num + 1}: {about.job.override_dirname.replace('++', '')}",
            flush=True,
        )


@contextlib.contextmanager
def _argv(argv: list[str]) -> Iterator[None]:
    before, sys.argv = sys.argv, argv
    try:
        yield
    finally:
        sys.argv = before


@contextlib.contextmanager
def _full_errors() -> Iterator[None]:
    """Within it Hydra raises errors instead of printing them and ending the process."""
    key = "HYDRA_FULL_ERROR"
    before = os.environ.get(key)
    os.environ[key] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[key]
        else:
            os.environ[key] = before
