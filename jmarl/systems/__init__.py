"""Systems: one module for each algorithm, and the kits they call.

A system that only selects networks and defaults of another system has no module of its own. The
file ``configs/system/<name>.yaml`` describes the system and names its algorithm. The module
``_variant.py`` is loaded in its place.
"""

from __future__ import annotations

import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path
from typing import Any

from jmarl.config.choices import systems


class _VariantFinder(MetaPathFinder):
    """Finder of modules for systems that are only YAML files.

    It is the last finder, so a system's own module has priority.
    """

    def find_spec(
        self, fullname: str, path: Any, target: Any = None, /
    ) -> ModuleSpec | None:
        """Return the spec of ``_variant.py`` under the name of the system."""
        package, _, name = fullname.rpartition(".")
        if package != __name__ or name not in systems():
            return None
        return spec_from_file_location(
            fullname, Path(__file__).with_name("_variant.py")
        )


sys.meta_path.append(_VariantFinder())
