"""Checkpoints of a whole run: Orbax for writing, a digest of each leaf for trust.

Orbax commits a step atomically, but it restores a flipped bit without a word and casts a leaf
to the type that is asked for. So each step carries, in the same atomic commit, the shape, type and
sha256 of every leaf; all three are compared before anything is handed back.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import pathlib
import shutil
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jmarl.config import ConfigError


Meta = dict[str, Any]
ASIDE = ".aside-"
"""Before the number of a step that is being written again."""


class Restored(NamedTuple):
    """A state as host arrays, what was saved beside it, and the step that it is of."""

    state: Any
    meta: Meta
    step: int


class _Corrupt(Exception):
    """A step whose content is not what was saved."""


def leaf_paths(tree: Any) -> list[str]:
    """The name of each leaf: its path, joined by slashes."""
    return [
        jax.tree_util.keystr(path, simple=True, separator="/")
        for path, _ in jax.tree.leaves_with_path(tree)
    ]


def leaf_shapes(tree: Any) -> dict[str, str]:
    """Type and shape of each leaf by path, as text: ``float32[3,4]``."""
    return {
        path: _shape_text(*_raw_shape(x))
        for path, x in zip(leaf_paths(tree), jax.tree.leaves(tree), strict=True)
    }


def to_host(tree: Any) -> dict[str, np.ndarray]:
    """A flat copy on the host, by path; typed keys as their words. Copies, so that donation cannot reach it."""

    def raw(x: Any) -> Any:
        return jax.random.key_data(x) if _is_key(x) else x

    leaves = jax.device_get([raw(x) for x in jax.tree.leaves(tree)])
    return {path: np.array(x) for path, x in zip(leaf_paths(tree), leaves, strict=True)}


def digest(tree: Any) -> str:
    """The sha256 of a whole state, over the names, types, shapes and bytes of its leaves."""
    return _hash_json(_describe(to_host(tree)))


class Checkpoints:
    """The checkpoints of one run, in one folder.

    Opening it creates the folder and removes what an interrupted write left there, unless it is
    opened ``read_only``. ``keep`` steps stay; ``verify`` compares digests at ``restore``.
    ``warn`` gets one line for each thing that went wrong without stopping the run.
    """

    def __init__(
        self,
        folder: pathlib.Path,
        *,
        keep: int,
        verify: bool,
        warn: Callable[[str], None],
        read_only: bool = False,
    ) -> None:
        self._folder, self._verify, self._warn = folder.absolute(), verify, warn
        if not read_only:
            self._return_or_drop()
        self._manager, self._args = _manager(self._folder, keep, read_only)

    def save(self, step: int, state: Any, meta: Meta) -> None:
        """Copy the state to the host and write it in the background; one that fails is warned of at the next call.

        A step of that number stays aside until the new one is committed.
        """
        self._settle()
        host = to_host(state)
        leaves = _describe(host)
        record = {"meta": meta, "leaves": leaves, "digest": _hash_json([meta, leaves])}
        arrays = {path: x for path, x in host.items() if x.size}
        items = {
            "state": self._args.StandardSave(arrays),
            "record": self._args.JsonSave(record),
        }
        try:
            if step in self._manager.all_steps():
                (self._folder / str(step)).rename(self._folder / f"{ASIDE}{step}")
                self._manager.reload()
            self._manager.save(step, args=self._args.Composite(**items), force=True)
        except Exception as error:
            self._lost(error)

    def restore(self, like: Any) -> Restored | None:
        """The newest valid step, in the structure of ``like``; None if no step was ever saved.

        ``like`` may be a function that gives the structure for what was saved beside the state.
        Falls back from a damaged step to the one before it, with a warning that names it. Raises
        ``ConfigError`` when a step does not fit ``like`` (other leaves, shapes or types), and
        when no step is valid.
        """
        steps = sorted(self._manager.all_steps(), reverse=True)
        for step in steps:
            try:
                return self._load(step, like)
            except _Corrupt as error:
                self._warn(
                    f"checkpoint {step} is damaged ({error}); trying the one before it"
                )
        if steps:
            raise ConfigError(
                f"{self._folder}: none of the checkpoints {_listed(steps)} can be restored"
            )
        return None

    def discard_after(self, step: int) -> None:
        """Remove the steps after the one that was restored, because they proved damaged."""
        for later in [s for s in self._manager.all_steps() if s > step]:
            self._remove(later)

    def close(self) -> None:
        """Wait for the last write."""
        self._settle()
        self._manager.close()

    def _remove(self, step: int) -> None:
        try:
            shutil.rmtree(self._folder / str(step))
        except OSError as error:
            self._warn(f"checkpoint {step} could not be removed: {_one_line(error)}")
        self._manager.reload()

    def _settle(self) -> None:
        try:
            self._manager.wait_until_finished()
        except Exception as error:
            self._lost(error)
        if self._return_or_drop():
            self._manager.reload()

    def _return_or_drop(self) -> bool:
        """End what ``save`` put aside: it goes if its successor is committed, and comes back if not."""
        found = list(self._folder.glob(f"{ASIDE}*"))
        for aside in found:
            step = self._folder / aside.name.removeprefix(ASIDE)
            if step.exists():
                shutil.rmtree(aside, ignore_errors=True)
            else:
                with contextlib.suppress(OSError):
                    aside.rename(step)
        return bool(found)

    def _lost(self, error: Exception) -> None:
        self._warn(
            f"a checkpoint could not be written, training goes on without it: {_one_line(error)}"
        )

    def _load(self, step: int, like: Any) -> Restored:
        record = self._read(step, "record", self._args.JsonRestore())
        if _hash_json([record.get("meta"), record.get("leaves")]) != record.get(
            "digest"
        ):
            raise _Corrupt("its description does not match its digest")
        leaves = record["leaves"]
        like = like(record["meta"]) if callable(like) else like
        _check_fit(leaves, like, f"checkpoint {step} in {self._folder}")
        blank = {
            path: np.empty(leaf["shape"], leaf["dtype"])
            for path, leaf in leaves.items()
        }
        arrays = self._args.StandardRestore(
            {path: x for path, x in blank.items() if x.size}
        )
        host = blank | self._read(step, "state", arrays)
        if self._verify:
            _check_digests(host, leaves)
        return Restored(_from_host(host, like), record["meta"], step)

    def _read(self, step: int, item: str, args: Any) -> Any:
        """One item of a step; the exceptions that Orbax raises on damaged files have no common type."""
        try:
            return self._manager.restore(
                step, args=self._args.Composite(**{item: args})
            )[item]
        except Exception as error:
            raise _Corrupt(_one_line(error)) from error


def _manager(folder: pathlib.Path, keep: int, read_only: bool) -> tuple[Any, Any]:
    """An Orbax manager and ``orbax.checkpoint.args``, imported here because that takes most of a second."""
    import orbax.checkpoint as ocp

    logging.getLogger("absl").setLevel(logging.ERROR)
    options = ocp.CheckpointManagerOptions(
        max_to_keep=keep, create=not read_only, cleanup_tmp_directories=not read_only
    )
    return ocp.CheckpointManager(folder, options=options), ocp.args


def _is_key(x: Any) -> bool:
    return jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


def _describe(host: dict[str, np.ndarray]) -> dict[str, dict[str, Any]]:
    return {
        path: {
            "shape": list(x.shape),
            "dtype": str(x.dtype),
            "sha256": hashlib.sha256(np.ascontiguousarray(x).tobytes()).hexdigest(),
        }
        for path, x in host.items()
    }


def _hash_json(tree: Any) -> str:
    return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()


def _check_fit(saved: dict[str, dict[str, Any]], like: Any, name: str) -> None:
    """Raise ``ConfigError`` naming the leaves whose existence, shape or type differs."""
    wanted = {
        path: _raw_shape(x)
        for path, x in zip(leaf_paths(like), jax.tree.leaves(like), strict=True)
    }
    have = {path: (tuple(leaf["shape"]), leaf["dtype"]) for path, leaf in saved.items()}
    differences = [f"{path} is missing" for path in wanted.keys() - have.keys()]
    differences += [
        f"{path} is not part of this configuration"
        for path in have.keys() - wanted.keys()
    ]
    differences += [
        f"{path} is {_shape_text(*have[path])} but this configuration needs {_shape_text(*wanted[path])}"
        for path in wanted.keys() & have.keys()
        if wanted[path] != have[path]
    ]
    if differences:
        raise ConfigError(f"{name} does not fit: {_listed(sorted(differences), '; ')}")


def _raw_shape(x: Any) -> tuple[tuple[int, ...], str]:
    raw = jax.eval_shape(jax.random.key_data, x) if _is_key(x) else x
    return tuple(raw.shape), str(raw.dtype)


def _shape_text(shape: tuple[int, ...], dtype: str) -> str:
    return f"{dtype}[{','.join(map(str, shape))}]"


def _check_digests(
    host: dict[str, np.ndarray], leaves: dict[str, dict[str, Any]]
) -> None:
    changed = [path for path, leaf in _describe(host).items() if leaf != leaves[path]]
    if changed:
        raise _Corrupt(f"the digest of {_listed(changed)} does not match")


def _from_host(host: dict[str, np.ndarray], like: Any) -> Any:
    def leaf(path: str, x: Any) -> Any:
        return (
            jax.random.wrap_key_data(jnp.asarray(host[path]))
            if _is_key(x)
            else host[path]
        )

    leaves = [
        leaf(path, x)
        for path, x in zip(leaf_paths(like), jax.tree.leaves(like), strict=True)
    ]
    return jax.tree.unflatten(jax.tree.structure(like), leaves)


def _listed(items: list[Any], separator: str = ", ", most: int = 4) -> str:
    rest = f"{separator}and {len(items) - most} more" if len(items) > most else ""
    return separator.join(map(str, items[:most])) + rest


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
