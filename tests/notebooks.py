"""Reads and runs the notebooks of the repository."""

from __future__ import annotations

import base64
import os
from pathlib import Path
from typing import Any

import nbformat
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient

import jmarl


ROOT = Path(jmarl.__file__).parents[1]


def read_notebook(name: str) -> Any:
    """Read a notebook of the folder ``notebooks``."""
    return nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)


def cell(notebook: Any, name: str) -> Any:
    """Return the cell with an id."""
    (match,) = (c for c in notebook.cells if c.id == name)
    return match


def code_cells(notebook: Any) -> list[Any]:
    """Return the code cells."""
    return [c for c in notebook.cells if c.cell_type == "code"]


def assert_committed_without_results(notebook: Any) -> None:
    """Check the format, that no cell has run, and that one cell has the parameters."""
    nbformat.validate(notebook)
    code = code_cells(notebook)
    assert all(c.outputs == [] for c in code)
    assert all(c.execution_count is None for c in code)
    tagged = [c.id for c in code if "parameters" in c.metadata.get("tags", [])]
    assert tagged == ["parameters"]


def run_notebook(notebook: Any, parameters: str, folder: Path, home: Path) -> None:
    """Run a notebook in a kernel of this interpreter.

    Args:
        notebook: Notebook, changed in place.
        parameters: Code that follows the cell of parameters.
        folder: Working folder.
        home: Folder of the kernel's files.
    """
    names = [c.id for c in notebook.cells]
    after_parameters = names.index("parameters") + 1
    notebook.cells.insert(after_parameters, nbformat.v4.new_code_cell(parameters))
    # Without kernel folders, the only kernel is that of this interpreter.
    kernel = AsyncKernelManager(kernel_spec_manager=KernelSpecManager(kernel_dirs=[]))
    kernel.connection_file = str(home / "kernel.json")
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "IPYTHONDIR": str(home),
        "MPLBACKEND": "",
    }
    client = NotebookClient(
        notebook, km=kernel, timeout=400, resources={"metadata": {"path": str(folder)}}
    )
    client.execute(env=environment, cleanup_kc=True)


def outputs_of_type(cell: Any, mime: str) -> list[bytes]:
    """Return the outputs of a cell with this MIME type."""
    bundles = [output.get("data", {}) for output in cell.outputs]
    return [base64.b64decode(data[mime]) for data in bundles if mime in data]


def printed(cell: Any) -> str:
    """Return what a cell printed."""
    return "".join(o.text for o in cell.outputs if o.output_type == "stream")
