"""``jmarl <verb>`` and ``python -m jmarl <verb>``."""

from __future__ import annotations

from jmarl.cli.commands import main


if __name__ == "__main__":
    main()
