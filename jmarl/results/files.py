"""Files that are replaced atomically."""

from __future__ import annotations

import json
import os
import pathlib
from typing import Any

from jmarl.config.errors import check


def replace_file(path: pathlib.Path, content: str | bytes) -> None:
    """Write a file atomically. Text is encoded as UTF-8.

    Raises:
        OSError: If the file cannot be written. It keeps its content, and the error names it.
    """
    scratch = path.with_name(f".{path.name}.tmp")
    encoded = content.encode() if isinstance(content, str) else content
    try:
        scratch.write_bytes(encoded)
        os.replace(scratch, path)
    except OSError as error:
        scratch.unlink(missing_ok=True)
        reason = error.strerror or str(error)
        raise OSError(error.errno, reason, str(path)) from None


def json_text(tree: Any) -> str:
    """Return the text of a JSON file."""
    return json.dumps(tree, indent=1) + "\n"


def check_writable(file: str, key: str = "json") -> None:
    """Check before long work that its results can be written.

    Args:
        file: Path of the file; empty for no file.
        key: Argument that names it, for the error message.

    Raises:
        ConfigError: If the file cannot be written.
    """
    path = pathlib.Path(file)
    folder_exists = path.parent.is_dir() and os.access(path.parent, os.W_OK)
    fits = not file or (folder_exists and not path.is_dir())
    rule = "cannot be written; name a file in an existing folder"
    check(fits, key, file, rule)


def write_json(path: pathlib.Path, tree: Any) -> None:
    """Write a JSON file atomically.

    Raises:
        OSError: If the file cannot be written.
    """
    replace_file(path, json_text(tree))


def read_json(path: pathlib.Path) -> dict[str, Any]:
    """Read a JSON file; return an empty dictionary if it does not exist."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
