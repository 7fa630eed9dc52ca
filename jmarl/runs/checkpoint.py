"""Checkpoints of a whole run, written by Orbax and verified by a digest of each leaf.

Process 0 writes the checkpoints of a run on several processes. All processes read them.

Orbax commits a step atomically. However, it restores flipped bits silently and casts a
leaf to the requested dtype. Each step therefore also contains the shape, dtype and
SHA-256 of every leaf, in the same atomic commit. Restoring always compares shapes, dtypes
and the digest of this description; it compares the leaves only if ``checkpoint.verify``.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import pathlib
import re
import shutil
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jmarl.config import ConfigError
from jmarl.hosts import process_group
from jmarl.hosts.arrays import whole
from jmarl.learning.trees import is_key, leaf_paths, raw_shapes, shape_text
from jmarl.runs.exit_codes import full_disk_reason


Meta = dict[str, Any]
"""Metadata of a checkpoint, as JSON."""
Leaf = dict[str, Any]
"""Shape, dtype and SHA-256 of one leaf, as JSON."""
ASIDE_PREFIX = ".aside-"
"""Prefix of the folder of an old step while its replacement is written."""
INCOMPLETE = ".orbax-checkpoint-tmp"
"""Part of the name of a folder that Orbax is writing."""
REMOVE_ATTEMPTS = 20
"""Attempts to remove an incomplete step, one each 50 ms."""
_PREVIOUS_HOOK = sys.unraisablehook


class Restored(NamedTuple):
    """A state of host arrays, its metadata and its step."""

    state: Any
    meta: Meta
    step: int


class _CorruptError(Exception):
    """Error for a step with damaged content."""


def to_host(tree: Any) -> dict[str, np.ndarray]:
    """Copy the leaves to the host, by path. A typed key becomes its key data.

    The arrays own their memory, so that later donation of the leaves cannot change them. Of several
    processes, only process 0 keeps them.
    """
    if process_group.count() > 1:
        return _gather_to_writer(tree)

    def raw(x: Any) -> Any:
        return jax.random.key_data(x) if is_key(x) else x

    leaves = jax.device_get([raw(x) for x in jax.tree.leaves(tree)])
    return {path: np.array(x) for path, x in zip(leaf_paths(tree), leaves, strict=True)}


def _gather_to_writer(tree: Any) -> dict[str, np.ndarray]:
    host = {}
    for path, x in zip(leaf_paths(tree), jax.tree.leaves(tree), strict=True):
        gathered = whole(jax.random.key_data(x) if is_key(x) else x)
        if process_group.is_writer():
            host[path] = gathered
    return host


def digest(tree: Any) -> str:
    """Return the SHA-256 over paths, dtypes, shapes and bytes of all leaves."""
    return _hash_json(_describe_leaves(to_host(tree)))


class Checkpoints:
    """The checkpoints of one run, in one folder.

    Opening creates the folder and removes the remains of an interrupted write, unless
    ``read_only``.

    Args:
        folder: Folder of the checkpoints, with one subfolder for each step.
        keep: Number of newest steps to keep.
        verify: Compare digests in ``restore``.
        warn: Receives one line for each failure that does not stop the run.
        read_only: Leave the folder unchanged.
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
        self._folder = folder.absolute()
        self._verify = verify
        self._warn = warn
        self._writing = 0
        self._failure = ""
        self._warned: set[str] = set()
        read_only = read_only or not process_group.is_writer()
        if not read_only:
            self._clear_aside()
        if (
            process_group.count() > 1
        ):  # Orbax would wait for processes that do not write
            process_group.by_writer(self._make_folder, read_only)
        self._manager, self._args = _open_manager(self._folder, keep, read_only)

    def save(self, step: int, state: Any, meta: Meta) -> None:
        """Copy the state to the host and write it in the background.

        An existing step of this number is kept until the new one is committed. A failed
        write leaves the older steps unchanged, and results in a warning at the latest in
        the next call. Further failures for the same reason are silent until a write succeeds.
        """
        self._finish_writing()
        host = to_host(state)
        if not process_group.is_writer():
            return
        leaves = _describe_leaves(host)
        record = {
            "meta": meta,
            "leaves": leaves,
            "digest": _hash_json([meta, leaves]),
        }
        arrays = {path: x for path, x in host.items() if x.size}
        items = {
            "state": self._args.StandardSave(arrays),
            "record": self._args.JsonSave(record),
        }
        try:
            if step in self._manager.all_steps():
                self._move_aside(step)
            self._make_room()
            self._writing = step
            self._manager.save(step, args=self._args.Composite(**items), force=True)
        except Exception as error:
            self._fail(step, error)

    def wait(self) -> str:
        """Wait for the last write.

        Returns:
            The reason if it failed, else an empty string.
        """
        self._finish_writing()
        return process_group.share(self._failure)

    def restore(self, template: Any) -> Restored | None:
        """Restore the newest valid step.

        A damaged step results in a warning, and the previous one is restored.

        Args:
            template: A tree with the structure, shapes and dtypes of the state, or a
                function that returns it for the metadata of a step.

        Returns:
            The state in the structure of ``template``, or None if no step was saved.

        Raises:
            ConfigError: If a step does not fit ``template``, or if no step is valid.
        """
        restored: list[Restored] = []
        step = process_group.by_writer(self._restore_newest, template, restored)
        if step is None:
            return None
        if not restored:  # other processes read the step that process 0 has chosen
            self._manager.reload()
            restored.append(self._load(step, template))
        return restored[0]

    def _restore_newest(self, template: Any, restored: list[Restored]) -> int | None:
        """Restore the newest valid step into a list, and return its number."""
        steps = sorted(self._manager.all_steps(), reverse=True)
        for step in steps:
            try:
                restored.append(self._load(step, template))
                return step
            except _CorruptError as error:
                self._warn(
                    f"checkpoint {step} is damaged ({error}); trying the previous one"
                )
        if steps:
            raise ConfigError(
                f"{self._folder}: none of the checkpoints {_join_first(steps)} "
                "can be restored"
            )
        return None

    @process_group.writer_only
    def discard_after(self, step: int) -> None:
        """Remove the damaged steps that are newer than the restored one."""
        for later in [s for s in self._manager.all_steps() if s > step]:
            self._remove(later)

    def close(self) -> None:
        """Wait for the last write and release the folder."""
        self._finish_writing()
        self._manager.close()

    def _make_folder(self, read_only: bool) -> None:
        if not read_only:
            self._folder.mkdir(exist_ok=True)

    def _remove(self, step: int) -> None:
        try:
            shutil.rmtree(self._folder / str(step))
        except OSError as error:
            self._warn(f"checkpoint {step} could not be removed: {_one_line(error)}")
        self._manager.reload()

    def _finish_writing(self) -> None:
        step, self._writing = self._writing, 0
        try:
            self._manager.wait_until_finished()
        except Exception as error:
            self._fail(step, error)
        else:
            self._succeed(step)
        if process_group.is_writer() and self._clear_aside():
            self._manager.reload()

    def _succeed(self, step: int) -> None:
        if step and self._failure:
            self._warn(f"checkpoint {step} written; checkpoints can be saved again")
            self._failure = ""
            self._warned.clear()

    def _fail(self, step: int, error: Exception) -> None:
        """Warn, and remove the incomplete step."""
        self._writing = 0
        text = _one_line(error).replace(str(self._folder), "checkpoints")
        self._failure = full_disk_reason(error) or text
        note = f"checkpoint {step} not written; training continues: {self._failure}"
        self._warn_once(note)
        self._remove_incomplete()

    def _remove_incomplete(self) -> None:
        """Remove incomplete steps, to which threads of a failed write may still add files."""
        for _ in range(REMOVE_ATTEMPTS):
            folders = list(self._folder.glob(f"*{INCOMPLETE}*"))
            if not folders:
                return
            for folder in folders:
                shutil.rmtree(folder, ignore_errors=True)
            time.sleep(0.05)

    def _make_room(self) -> None:
        """Remove the oldest of several steps if the disk has too little room for another."""
        steps = sorted(self._manager.all_steps())
        if len(steps) < 2:
            return
        files = (self._folder / str(steps[-1])).rglob("*")
        size = 512 * sum(file.stat().st_blocks for file in files)
        if shutil.disk_usage(self._folder).free < size:
            note = f"checkpoint {steps[0]} removed, because the disk is nearly full"
            self._warn_once(note)
            self._remove(steps[0])

    def _warn_once(self, note: str) -> None:
        """Warn, unless an earlier note differs only in its numbers."""
        kind = re.sub(r"\d+", "", note)
        if kind not in self._warned:
            self._warn(note)
        self._warned.add(kind)

    def _move_aside(self, step: int) -> None:
        (self._folder / str(step)).rename(self._folder / f"{ASIDE_PREFIX}{step}")
        self._manager.reload()

    def _clear_aside(self) -> bool:
        """Remove each step that was moved aside and replaced; move the others back."""
        folders = list(self._folder.glob(f"{ASIDE_PREFIX}*"))
        for aside in folders:
            step = self._folder / aside.name.removeprefix(ASIDE_PREFIX)
            if step.exists():
                shutil.rmtree(aside, ignore_errors=True)
            else:
                with contextlib.suppress(OSError):
                    aside.rename(step)
        return bool(folders)

    def _load(self, step: int, template: Any) -> Restored:
        record = self._read(step, "record", self._args.JsonRestore())
        described = [record.get("meta"), record.get("leaves")]
        if _hash_json(described) != record.get("digest"):
            raise _CorruptError("the description does not match its digest")
        meta = record["meta"]
        leaves = record["leaves"]
        template = template(meta) if callable(template) else template
        _check_fit(leaves, template, f"checkpoint {step} in {self._folder}")
        host = self._read_arrays(step, leaves)
        if self._verify:
            _verify_digests(host, leaves)
        return Restored(_from_host(host, template), meta, step)

    def _read_arrays(self, step: int, leaves: dict[str, Leaf]) -> dict[str, np.ndarray]:
        empty = {
            path: np.empty(leaf["shape"], leaf["dtype"])
            for path, leaf in leaves.items()
        }
        # Orbax does not store arrays of size 0
        stored = {path: x for path, x in empty.items() if x.size}
        return empty | self._read(step, "state", self._args.StandardRestore(stored))

    def _read(self, step: int, item: str, args: Any) -> Any:
        composite = self._args.Composite(**{item: args})
        try:
            return self._manager.restore(step, args=composite)[item]
        except Exception as error:  # Orbax has no common type for damaged files
            raise _CorruptError(_one_line(error)) from error


def _open_manager(folder: pathlib.Path, keep: int, read_only: bool) -> tuple[Any, Any]:
    """Return an Orbax manager and the module ``orbax.checkpoint.args``."""
    import orbax.checkpoint as ocp  # slow to import, most of a second

    logger = logging.getLogger("absl")
    logger.setLevel(logging.ERROR)
    logger.addFilter(_shorten_record)
    logging.getLogger("asyncio").addFilter(_is_not_of_orbax)
    sys.unraisablehook = _hide_closed_loop
    options = ocp.CheckpointManagerOptions(
        max_to_keep=keep,
        create=not read_only and process_group.count() == 1,
        cleanup_tmp_directories=not read_only,
        multiprocessing_options=_only_this_process(ocp.options),
    )
    return ocp.CheckpointManager(folder, options=options), ocp.args


def _only_this_process(options: Any) -> Any:
    """Return Orbax's options for a process that does not wait for the others."""
    index = process_group.current().index
    if process_group.count() == 1:
        return options.MultiprocessingOptions()
    return options.MultiprocessingOptions(
        primary_host=index,
        active_processes={index},
        barrier_sync_key_prefix=f"process_{index}",
    )


def _shorten_record(record: logging.LogRecord) -> bool:
    """Remove the tracebacks that Orbax logs for errors which it also raises."""
    if "orbax" not in record.pathname or not record.exc_info:
        return True
    record.exc_info = None
    return record.funcName == "delete_checkpoint"  # the only one that it does not raise


def _is_not_of_orbax(record: logging.LogRecord) -> bool:
    """Hide errors of further arrays, which Orbax does not await after the first error."""
    return "orbax" not in record.getMessage()


def _hide_closed_loop(unraisable: Any) -> None:
    """Hide the errors of the other arrays after one array could not be written.

    They occur because the event loop of the write is closed. TensorStore cannot raise them.
    """
    if str(unraisable.exc_value) != "Event loop is closed":
        _PREVIOUS_HOOK(unraisable)


def _describe_leaves(host: dict[str, np.ndarray]) -> dict[str, Leaf]:
    return {path: _describe_leaf(x) for path, x in host.items()}


def _describe_leaf(x: np.ndarray) -> Leaf:
    content = np.ascontiguousarray(x).tobytes()
    return {
        "shape": list(x.shape),
        "dtype": str(x.dtype),
        "sha256": hashlib.sha256(content).hexdigest(),
    }


def _hash_json(tree: Any) -> str:
    text = json.dumps(tree, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _check_fit(leaves: dict[str, Leaf], template: Any, name: str) -> None:
    """Raise ``ConfigError`` with the leaves that are missing or differ in shape or dtype."""
    wanted = raw_shapes(template)
    saved = {
        path: (tuple(leaf["shape"]), leaf["dtype"]) for path, leaf in leaves.items()
    }
    missing = [f"{path} is missing" for path in wanted.keys() - saved.keys()]
    unknown = [
        f"{path} is not part of this configuration"
        for path in saved.keys() - wanted.keys()
    ]
    different = [
        f"{path} is {shape_text(*saved[path])} "
        f"but this configuration needs {shape_text(*wanted[path])}"
        for path in wanted.keys() & saved.keys()
        if wanted[path] != saved[path]
    ]
    differences = sorted(missing + unknown + different)
    if differences:
        raise ConfigError(f"{name} does not fit: {_join_first(differences, '; ')}")


def _verify_digests(host: dict[str, np.ndarray], leaves: dict[str, Leaf]) -> None:
    described = _describe_leaves(host)
    changed = [path for path, leaf in described.items() if leaf != leaves[path]]
    if changed:
        raise _CorruptError(f"the digest of {_join_first(changed)} does not match")


def _from_host(host: dict[str, np.ndarray], template: Any) -> Any:
    def restore_leaf(path: str, x: Any) -> Any:
        if not is_key(x):
            return host[path]
        return jax.random.wrap_key_data(jnp.asarray(host[path]))

    leaves, structure = jax.tree.flatten(template)
    paths = leaf_paths(template)
    return jax.tree.unflatten(structure, map(restore_leaf, paths, leaves))


def _join_first(items: list[Any], separator: str = ", ", limit: int = 4) -> str:
    hidden = len(items) - limit
    more = f"{separator}and {hidden} more" if hidden > 0 else ""
    return separator.join(map(str, items[:limit])) + more


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
