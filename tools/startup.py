"""Print how long help texts and errors of the configuration take, in fresh processes.

    python -m tools.startup [repetitions]

The goals apply to an idle core: 0.5 s for a help text, and 2 s for an error. The exit code is 1 if
the fastest of the repetitions exceeds a goal.
"""

from __future__ import annotations

import subprocess
import sys
import time


HELP_S, ERROR_S = 0.5, 2.0
COMMANDS = {
    "mappo --help": HELP_S,
    "mam_ppo --help": HELP_S,
    "mam_ppo network=gru": ERROR_S,
    "mappo lrr=3": ERROR_S,
    "vdn system.lr=nan": ERROR_S,
    "mam_ppo env.foo=1": ERROR_S,
    "qmix system.replay_size=1": ERROR_S,
    "ippo init_from=nowhere": ERROR_S,
}
"""Arguments of ``python -m jmarl.systems.<system>``, and the goal in seconds."""


def main(repetitions: int) -> int:
    """Print the shortest time of each command; return the exit code."""
    missed = False
    for arguments, goal in COMMANDS.items():
        seconds = min(duration(arguments) for _ in range(repetitions))
        missed |= seconds > goal
        print(f"{seconds:5.2f} s of {goal} s  {arguments}", flush=True)
    return int(missed)


def duration(arguments: str) -> float:
    """Return the seconds that a command takes."""
    system, *rest = arguments.split()
    command = [sys.executable, "-m", f"jmarl.systems.{system}", *rest]
    began = time.perf_counter()
    subprocess.run(command, capture_output=True, check=False)
    return time.perf_counter() - began


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if sys.argv[1:] else 5))
