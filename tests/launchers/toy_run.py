"""A run without JAX: a chain of hashes that saves its state and stops as a run does.

``python -m tests.launchers.toy_run run_dir=<folder> links=<n> [code=<exit code>]``
"""

from __future__ import annotations

import hashlib
import json
import signal
import sys
import time
from pathlib import Path

from jmarl.runs.exit_codes import ExitCode


def main(words):
    given = dict(word.split("=", 1) for word in words)
    folder = Path(given.get("resume") or given["run_dir"])
    config, saved = folder / "config.yaml", folder / "saved.json"
    with (folder / "starts").open("a") as starts:
        starts.write(f"{words[0].partition('=')[0]}\n")
    if "run_dir" in given:
        config.write_text(json.dumps(given))
    given = json.loads(config.read_text())
    chain = json.loads(saved.read_text()) if saved.exists() else [given["run_dir"][-1]]
    stopped = []
    signal.signal(signal.SIGTERM, lambda *_: stopped.append(1))
    while len(chain) < int(given["links"]):
        chain.append(hashlib.sha256(chain[-1].encode()).hexdigest())
        saved.write_text(json.dumps(chain))
        time.sleep(0.05)
        if stopped:
            (folder / "stopped").touch()
            return ExitCode.PREEMPTED
    if code := int(given.get("code", 0)):
        print("error: a reason", file=sys.stderr)
        return code
    (folder / "result").write_text("\n".join(chain))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
