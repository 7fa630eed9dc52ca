"""Settings of the process: exit codes, CPU devices and the compilation cache."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from jmarl.config import ArchConfig, ConfigError
from jmarl.hosts import process_group, watch
from jmarl.results.machine import cores
from jmarl.runs.exit_codes import COMPILE_THREAD, ExitCode, ResourceError


MAX_CPU_DEVICES = 4
"""More devices are not faster, because each would get few environments of a minibatch."""


def exit_code(command: Callable[[], int]) -> int:
    """Run a command and return its exit code.

    ``ConfigError``, ``ResourceError`` and errors of process 0 in other processes are printed on
    one line. Ctrl-C and a closed pipe print nothing.
    """
    try:
        code = command()
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        # Otherwise Python reports the error again when it flushes stdout at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.BROKEN_PIPE
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return ExitCode.USER_ERROR
    except ResourceError as error:
        print(f"error: {error}", file=sys.stderr)
        return ExitCode.RESOURCE
    except process_group.WriterError as error:
        print(f"error: {error}", file=sys.stderr)
        return ExitCode.CRASHED
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    except Exception:
        if process_group.count() == 1:
            raise
        traceback.print_exc()
        return ExitCode.CRASHED


def open_missing_streams() -> None:
    """Open the null device as standard output or error if the process starts without one.

    Otherwise a file of the run would get the stream's descriptor, and C++ libraries would
    print into that file.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))


def exit_process(code: int) -> NoReturn:
    """Exit, without waiting for a compilation in the background.

    Such a compilation cannot be interrupted, and Python would wait for its thread. A process that
    fails does not wait for the other processes of its run either, but ends them.
    """
    if code in (ExitCode.FINISHED, ExitCode.PREEMPTED):
        watch.finish()
    elif process_group.count() > 1:
        watch.fail(f"exit code {code}")
        _exit_at_once(code)
    threads = threading.enumerate()
    if any(thread.name.startswith(COMPILE_THREAD) for thread in threads):
        _exit_at_once(code)
    sys.exit(code)


def _exit_at_once(code: int) -> NoReturn:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def use_cores() -> None:
    """Split a CPU into 1, 2 or ``MAX_CPU_DEVICES`` devices, at most one per core.

    Environments are divided among devices. A core is faster on its own environments than
    on a share of every small matrix product. The environment variable
    ``JAX_NUM_CPU_DEVICES`` takes precedence. The call has no effect after JAX has started.
    """
    import jax

    flags = os.environ.get("XLA_FLAGS", "")
    if "JAX_NUM_CPU_DEVICES" in os.environ or "host_platform_device_count" in flags:
        return
    devices = max(n for n in (1, 2, MAX_CPU_DEVICES) if n <= max(1, cores()))
    with contextlib.suppress(RuntimeError):
        jax.config.update("jax_num_cpu_devices", devices)


def use_compile_cache(arch: ArchConfig) -> None:
    """Store compiled programs in ``arch.compile_cache``.

    The environment variable ``JAX_COMPILATION_CACHE_DIR`` takes precedence.
    """
    import jax

    if arch.compile_cache and "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        folder = Path(arch.compile_cache).expanduser()
        jax.config.update("jax_compilation_cache_dir", str(folder))
