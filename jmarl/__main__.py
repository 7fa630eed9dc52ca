"""``jmarl <verb>`` and ``python -m jmarl <verb>``."""

from __future__ import annotations

from jmarl.training.cli import main


if __name__ == "__main__":
    main()
