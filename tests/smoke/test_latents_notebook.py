"""The notebook that draws latents by t-SNE runs on the file that ``jmarl latents`` writes."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from jmarl.results.latent_report import LatentRows
from notebooks import (
    assert_committed_without_results,
    cell,
    outputs_of_type,
    printed,
    read_notebook,
    run_notebook,
)


def two_clusters(n: int) -> LatentRows:
    """Return rows of two unit classes, whose latents are far apart."""
    rng = np.random.default_rng(0)
    unit_class = np.arange(n) % 2
    mu = rng.normal(size=(n, 4)) + 20.0 * unit_class[:, None]
    step = np.arange(n) // 2
    unknown = np.full(n, np.nan)
    zeros = np.zeros(n, int)
    phase = step / step.max()
    return LatentRows(mu, mu, unit_class, zeros, step, phase, unknown, unknown)


def test_the_notebook_is_committed_without_results() -> None:
    assert_committed_without_results(read_notebook("latents_tsne"))


def test_the_notebook_draws_the_latents_and_their_control(tmp_path: Path) -> None:
    rows = two_clusters(60)
    np.savez_compressed(tmp_path / "latents.npz", **rows._asdict())
    notebook = read_notebook("latents_tsne")
    run_notebook(notebook, 'RUN, ROWS = ".", 40', tmp_path, tmp_path)
    assert printed(cell(notebook, "rows")) == "40 rows, latents of 4 components\n"
    for name in ("map", "control"):
        (picture,) = outputs_of_type(cell(notebook, name), "image/png")
        with Image.open(io.BytesIO(picture)) as image:
            assert image.size[0] > image.size[1] > 100
