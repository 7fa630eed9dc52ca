"""Module of every system that is only a YAML file. It forwards to the module of the algorithm.

It is loaded under the name of the system, as in ``python -m jmarl.systems.hpn_qmix``.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from jmarl.config.choices import algorithm_of


_name = __spec__.name.rpartition(".")[2]

if __name__ == "__main__":
    from jmarl.cli.launch import main

    main(_name)


def __getattr__(attribute: str) -> Any:
    algorithm = import_module(f"jmarl.systems.{algorithm_of(_name)}")
    return getattr(algorithm, attribute)
