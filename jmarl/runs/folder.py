"""The run folder: what lies in it, who may write to it, and how to continue from it.

    config.yaml      the resolved configuration, every key
    versions.json    packages, devices, commit, command
    metrics.jsonl    one row for each chunk, evaluation and the absolute metric
    status.json      running, interrupted, failed or finished; replaced atomically
    checkpoints/     Orbax, one folder for each step
    evaluation.json  the absolute metric;  curve.png  the learning curve

Nothing inside names the folder's own place, so it may be moved.
"""

from __future__ import annotations

import dataclasses
import datetime
import fcntl
import importlib.metadata
import json
import os
import pathlib
import platform
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import yaml

import jmarl
from jmarl.config import ConfigError, CurriculumConfig, RunConfig, check, read_value


PACKAGES = (
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "distrax",
    "jaxmarl",
    "orbax-checkpoint",
    "hydra-core",
    "numpy",
    "wandb",
)
COMPARED_VERSIONS = (
    "jmarl",
    "jaxmarl",
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "backend",
    "device_count",
)
"""What decides, by its version or kind, what an environment does and whether a resumed run goes the same way."""
CHANGEABLE = (
    "total_timesteps",
    "checkpoint",
    "logger",
    "arch.compile_cache",
    "run_dir",
    "resume",
)
"""Keys that a resumed run may be given anew; all others decide the program."""


def open_folder(config: RunConfig) -> pathlib.Path:
    """The folder of this run: the one to resume, the one asked for, or a new one by system, world, time and seed.

    Raises ``ConfigError`` when the folder to resume holds no run or the one asked for holds one already.
    """
    if config.resume:
        return existing("resume", config.resume)
    if config.run_dir:
        folder = pathlib.Path(config.run_dir).expanduser()
        if (folder / "config.yaml").exists():
            raise ConfigError(
                f"run_dir={folder}: holds a run; continue it with resume={folder} or choose another folder"
            )
        return _made(folder)
    now = datetime.datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    return _new(
        pathlib.Path("runs", config.system_name, str(config.env["name"])),
        f"{now}-s{config.seed}",
    )


def existing(key: str, run: str) -> pathlib.Path:
    """The folder of a run that was started; ``key`` is the one to blame in a ``ConfigError`` if there is none."""
    folder = pathlib.Path(run).expanduser()
    if not (folder / "config.yaml").exists():
        raise ConfigError(f"{key}={run}: no run folder (it has no config.yaml)")
    return folder


def _made(folder: pathlib.Path) -> pathlib.Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"run_dir={folder}: {error.strerror}") from None
    return folder


def _new(parent: pathlib.Path, name: str) -> pathlib.Path:
    """A folder that did not exist; jobs of a sweep may start in the same second."""
    _made(parent)
    for suffix in ("", *(f"-{i}" for i in range(2, 1000))):
        try:
            (parent / f"{name}{suffix}").mkdir()
        except FileExistsError:
            continue
        return parent / f"{name}{suffix}"
    raise ConfigError(f"run_dir: {parent / name} and all its numbered variants exist")


@contextmanager
def locked(folder: pathlib.Path) -> Iterator[None]:
    """Hold the folder as its only writer. Raises ``ConfigError`` if another process does, or it is read-only."""
    try:
        file = (folder / ".lock").open("a")
    except OSError as error:
        raise ConfigError(
            f"{folder}: cannot be written to ({error.strerror})"
        ) from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(
                f"{folder}: another process is writing this run"
            ) from None
        yield


def write_json(path: pathlib.Path, tree: Any) -> None:
    """Write and then replace, so that a reader never sees half a file."""
    _write(path, json.dumps(tree, indent=1) + "\n")


def _write(path: pathlib.Path, text: str) -> None:
    scratch = path.with_name(f".{path.name}.tmp")
    scratch.write_text(text, encoding="utf-8")
    os.replace(scratch, path)


def read_json(path: pathlib.Path) -> dict[str, Any]:
    """What ``write_json`` wrote; empty if there is nothing."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def write_status(folder: pathlib.Path, state: str, **details: Any) -> None:
    """``status.json``: running, interrupted, failed or finished, and since when."""
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    write_json(folder / "status.json", {"state": state, "time": now, **details})


def write_config(folder: pathlib.Path, config: RunConfig) -> None:
    """``config.yaml``: every key that decides the run, which its own place does not."""
    tree = _lists(dataclasses.asdict(config)) | {"run_dir": "", "resume": ""}
    _write(folder / "config.yaml", yaml.safe_dump(tree, sort_keys=False))


def read_config(folder: pathlib.Path) -> RunConfig:
    """The configuration that a run was started with. Raises ``ConfigError`` if its file is damaged."""
    from jmarl.config.compose import from_tree

    return from_tree(read_tree(folder))


def resume_config(run: str, overrides: Iterable[str] = ()) -> RunConfig:
    """The configuration to continue ``run`` with: its own, changed by ``key=value`` overrides.

    Raises ``ConfigError`` for an override that would make it another run: every key but
    ``CHANGEABLE`` must keep the value that it had.
    """
    from jmarl.config.compose import from_tree

    folder = existing("resume", run)
    tree = _later_keys() | read_tree(folder)
    for override in overrides:
        key, _, text = override.lstrip("+").partition("=")
        _override(tree, key, read_value(key, text))
    return from_tree({**tree, "resume": run})


def _later_keys() -> dict[str, Any]:
    """The defaults of those keys that a run may lack because it is older than they are."""
    return {
        "init_from": "",
        "curriculum": _lists(dataclasses.asdict(CurriculumConfig())),
    }


def _override(tree: dict[str, Any], key: str, value: Any) -> None:
    """Change one key in place, or make sure that nothing changes; keys that do not exist are left to ``build``."""
    *parents, last = key.split(".")
    node = tree
    for parent in parents:
        node = node.setdefault(parent, {})
        check(
            isinstance(node, dict),
            key,
            value,
            f"unknown key; {parent} is a value and has no parts",
        )
    old = node.get(last)
    if isinstance(old, dict):
        old = tree.get("system_name") if key == "system" else old.get("name")
    if key == "logger":
        tree["logger"] = _logger_choice(str(value))
    elif last not in node or any(
        key == k or key.startswith(f"{k}.") for k in CHANGEABLE
    ):
        node[last] = value
    elif old != value:
        group = isinstance(node[last], dict) and old is None
        shown = (
            "a choice made as the run began; leave it out"
            if group
            else f"{old!r} in this run"
        )
        raise ConfigError(
            f"{key}={value}: cannot change when a run is resumed (it is {shown}); start a new run instead"
        )


def _logger_choice(name: str) -> dict[str, Any]:
    from jmarl.config.choices import check_choice, configs_dir

    check_choice("logger", name, "")
    return yaml.safe_load(
        (configs_dir() / "logger" / f"{name}.yaml").read_text(encoding="utf-8")
    )


def read_tree(folder: pathlib.Path) -> dict[str, Any]:
    """``config.yaml`` as plain data. Raises ``ConfigError`` for what ``write_config`` would not write."""
    path = folder / "config.yaml"
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ConfigError(
            f"{path}: cannot be read ({' '.join(str(error).split())})"
        ) from None
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: holds no configuration")
    return tree


def _lists(tree: Any) -> Any:
    """Plain yaml: tuples become lists."""
    if isinstance(tree, dict):
        return {k: _lists(v) for k, v in tree.items()}
    return [_lists(v) for v in tree] if isinstance(tree, list | tuple) else tree


def package_versions() -> dict[str, str]:
    """The versions of those ``PACKAGES`` that are installed."""
    found = {}
    for package in PACKAGES:
        with suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


def versions() -> dict[str, Any]:
    """What this process runs on and with."""
    import jax

    return {
        "jmarl": jmarl.__version__,
        "python": platform.python_version(),
        **package_versions(),
        "backend": jax.default_backend(),
        "platform": platform.platform(),
        "device_count": jax.device_count(),
        "devices": [str(device) for device in jax.devices()],
        "device_kind": jax.devices()[0].device_kind,
        "commit": _commit(),
        "command": [
            a for a in sys.argv[1:] if not a.startswith(("run_dir=", "resume="))
        ],
    }


def write_versions(folder: pathlib.Path, now: dict[str, Any]) -> None:
    """``versions.json``: what the run began on; processes that resumed it are listed under ``resumed``."""
    tree = read_json(folder / "versions.json")
    write_json(
        folder / "versions.json",
        {**tree, "resumed": [*tree["resumed"], now]}
        if tree
        else {**now, "resumed": []},
    )


def version_changes(before: dict[str, Any]) -> list[str]:
    """What of ``COMPARED_VERSIONS`` is not what it was."""
    now = versions()
    changed = [name for name in COMPARED_VERSIONS if before.get(name) != now.get(name)]
    return [
        f"{name} {before.get(name)} when it was saved, {now.get(name)} now"
        for name in changed
    ]


def _commit() -> str:
    """The commit of a checkout, marked if files differ from it; empty when jmarl is installed otherwise."""
    root = pathlib.Path(jmarl.__file__).parents[1]
    if not (root / ".git").exists():
        return ""
    try:
        text = [
            "git",
            "-C",
            str(root),
            "describe",
            "--always",
            "--dirty",
            "--abbrev=40",
            "--exclude=*",
        ]
        return subprocess.run(
            text, capture_output=True, text=True, timeout=10, check=True
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""
