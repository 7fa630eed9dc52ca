"""``python -m jmarl <command>``, the same as ``jmarl <command>``."""

from __future__ import annotations

from jmarl.cli.commands import main


if __name__ == "__main__":
    main()
