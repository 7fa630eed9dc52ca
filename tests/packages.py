"""Install packages with entry points for a test, without pip."""

from __future__ import annotations

import pathlib
import tomllib

import pytest

from jmarl.envs import registry


def install(
    monkeypatch: pytest.MonkeyPatch, folder: pathlib.Path, pyproject: str
) -> None:
    """Put a folder with modules on ``sys.path``, and add the metadata that pip would write.

    Args:
        monkeypatch: Restores ``sys.path`` and the registry after the test.
        folder: Folder that contains the modules of the package.
        pyproject: Text of ``pyproject.toml``.
    """
    project = tomllib.loads(pyproject)["project"]
    name, version = project["name"], project["version"]
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    )
    points = project["entry-points"]["jmarl.envs"].items()
    lines = ["[jmarl.envs]", *(f"{key} = {value}" for key, value in points)]
    (info / "entry_points.txt").write_text("\n".join(lines))
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setattr(registry, "_plugins", registry._plugins.__wrapped__)
