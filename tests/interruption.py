"""Interrupted runs, and runs that share their compiled programs."""

import os
import signal

from jmarl.runs import loop
from jmarl.runs import run as run_module


def interrupt_after(monkeypatch, update: int, function: str = "train_chunk") -> None:
    """Send this process a SIGTERM when ``loop.<function>`` returns at ``update``."""
    real = getattr(loop, function)

    def interrupt(ctx, state, progress):
        result = real(ctx, state, progress)
        if result[1].update == update:
            os.kill(os.getpid(), signal.SIGTERM)
        return result

    monkeypatch.setattr(loop, function, interrupt)


def compile_once(monkeypatch) -> None:
    """Share the programs of the first run with all later runs of a test.

    Compilation takes nearly all the time of these tests.
    """
    compiled = []

    def compile_run(*args, real=run_module.compile_run, **options):
        if not compiled:
            compiled.append(real(*args, **options))
        return compiled[0]

    monkeypatch.setattr(run_module, "compile_run", compile_run)
