"""Report on latents: principal components, silhouette by class, and linear probes.

Probes are trained on half of the episodes and tested on the others. Their accuracy is balanced:
the mean over classes of the share of correct rows. Chance level is therefore 1 over the number of
classes. Each probe has a control: the same probe, trained on shuffled labels. Where rows form
clusters, a control may label whole clusters right or wrong. Its accuracy is therefore a mean over
many shuffles, with their 95th percentile.
"""

from __future__ import annotations

import pathlib
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int


MAX_SILHOUETTE_ROWS = 2_000
"""Most rows for which a silhouette is computed; its cost is quadratic in their number."""
SHUFFLES = 100
"""Shuffles of the labels for the control of a probe."""
RIDGE = 1e-3
"""Coefficient of the squared weights of a probe, per row."""


class LatentRows(NamedTuple):
    """One row for each time step of each living agent in recorded episodes."""

    mu: Float[np.ndarray, "R K"]
    latent: Float[np.ndarray, "R K"]
    unit_class: Int[np.ndarray, " R"]
    episode: Int[np.ndarray, " R"]
    step: Int[np.ndarray, " R"]
    """Time step, from 0."""
    phase: Float[np.ndarray, " R"]
    """Time step as a share of the episode's length."""
    health: Float[np.ndarray, " R"]
    """Share of the unit's health; NaN if the environment has no scene."""
    retreat: Float[np.ndarray, " R"]
    """1 if the unit moves away from the center of the enemies, else 0; NaN if not known."""


def principal_components(
    x: Float[np.ndarray, "R K"],
) -> tuple[Float[np.ndarray, " K"], Float[np.ndarray, "R K"]]:
    """Return the share of the variance of each principal component, and the components.

    Args:
        x: Rows.

    Returns:
        Shares ``[K]`` in descending order, and the coordinates of the rows ``[R, K]``.
    """
    centered = x - x.mean(0)
    _, scales, directions = np.linalg.svd(centered, full_matrices=False)
    variance = scales**2
    shares = variance / max(variance.sum(), 1e-12)
    return shares, centered @ directions.T


def silhouette(
    x: Float[np.ndarray, "R K"], labels: Int[np.ndarray, " R"], seed: int = 0
) -> float | None:
    """Return the mean silhouette (Rousseeuw 1987) of at most ``MAX_SILHOUETTE_ROWS`` rows.

    Args:
        x: Rows.
        labels: Cluster of each row.
        seed: Seed of the choice of rows.

    Returns:
        Mean in [-1, 1], or None if fewer than two clusters have two rows.
    """
    order = np.random.default_rng(seed).permutation(len(x))
    order = order[:MAX_SILHOUETTE_ROWS]
    x, labels = x[order], labels[order]
    names, counts = np.unique(labels, return_counts=True)
    names = names[counts > 1]
    if len(names) < 2:
        return None
    kept = np.isin(labels, names)
    x, labels = x[kept], labels[kept]
    squares = (x**2).sum(1)
    squared = squares[:, None] + squares - 2 * x @ x.T
    distance = np.sqrt(np.maximum(squared, 0.0))
    is_member = labels[:, None] == names  # [R, C]
    sizes = is_member.sum(0)
    to_cluster = distance @ is_member
    within = to_cluster[is_member] / (sizes[is_member.argmax(1)] - 1)
    to_others = np.where(is_member, np.inf, to_cluster / sizes)
    nearest = to_others.min(1)
    widest = np.maximum(np.maximum(within, nearest), 1e-12)
    return float(np.mean((nearest - within) / widest))


def probe(
    x: Float[np.ndarray, "R K"],
    labels: Int[np.ndarray, " R"],
    is_test: Bool[np.ndarray, " R"],
) -> float | None:
    """Return the balanced accuracy of a linear probe on held-out rows.

    The probe is a ridge regression to one-hot classes, in which every class has equal weight.

    Args:
        x: Rows.
        labels: Class of each row.
        is_test: Rows that are held out.

    Returns:
        Accuracy in [0, 1], or None if a class is absent from either half.
    """
    names = np.unique(labels)
    one_hot = (labels[:, None] == names).astype(float)
    counts = one_hot[~is_test].sum(0), one_hot[is_test].sum(0)
    if len(names) < 2 or min(counts[0].min(), counts[1].min()) == 0:
        return None
    scale = x[~is_test].std(0) + 1e-8
    inputs = np.column_stack([(x - x[~is_test].mean(0)) / scale, np.ones(len(x))])
    train, targets = inputs[~is_test], one_hot[~is_test]
    weights = targets @ (1 / counts[0])
    gram = train.T @ (weights[:, None] * train)
    gram += RIDGE * len(names) * np.eye(len(gram))
    solution = np.linalg.solve(gram, train.T @ (weights[:, None] * targets))
    predicted = (inputs[is_test] @ solution).argmax(1)
    correct = predicted == one_hot[is_test].argmax(1)
    recall = (one_hot[is_test] * correct[:, None]).sum(0) / counts[1]
    return float(recall.mean())


def probe_and_control(
    x: Float[np.ndarray, "R K"],
    labels: Float[np.ndarray, " R"],
    episode: Int[np.ndarray, " R"],
    seed: int = 0,
) -> dict[str, Any]:
    """Return the accuracy of a probe, and those of its control with shuffled labels.

    ``shuffled`` is the mean over ``SHUFFLES`` controls, and ``shuffled_95`` their 95th percentile.

    Args:
        x: Rows.
        labels: Class of each row; rows with NaN are left out.
        episode: Episode of each row. Odd episodes are held out.
        seed: Seed of the shuffles.
    """
    known = ~np.isnan(labels)
    x, labels = x[known], labels[known].astype(int)
    is_test = episode[known] % 2 == 1
    result = {
        "rows": len(labels),
        "classes": len(np.unique(labels)),
        "accuracy": probe(x, labels, is_test),
    }
    if result["accuracy"] is None:
        return result | {"shuffled": None, "shuffled_95": None}
    rng, controls = np.random.default_rng(seed), []
    for _ in range(SHUFFLES):
        shuffled = labels.copy()
        shuffled[~is_test] = rng.permutation(labels[~is_test])
        controls.append(probe(x, shuffled, is_test))
    high = float(np.percentile(controls, 95))
    return result | {"shuffled": float(np.mean(controls)), "shuffled_95": high}


def latent_report(rows: LatentRows, seed: int = 0) -> dict[str, Any]:
    """Return the report on mu and on the latents themselves.

    Args:
        rows: Recorded rows.
        seed: Seed of the choice of rows and of the shuffled labels.

    Returns:
        Numbers of rows and episodes, and the results for ``mu`` and ``latent``.
    """
    report: dict[str, Any] = {
        "rows": len(rows.step),
        "episodes": len(np.unique(rows.episode)),
    }
    for name in ("mu", "latent"):
        x = getattr(rows, name).astype(float)
        shares, _ = principal_components(x)
        unit_class = rows.unit_class.astype(float)
        report[name] = {
            "explained_variance": shares.round(6).tolist(),
            "silhouette": silhouette(x, rows.unit_class, seed),
            "unit_class": probe_and_control(x, unit_class, rows.episode, seed),
            "retreating": probe_and_control(x, rows.retreat, rows.episode, seed),
        }
    return report


def draw_latents(rows: LatentRows, path: pathlib.Path) -> None:
    """Draw the first two principal components of mu, by unit class and by phase.

    Args:
        rows: Recorded rows.
        path: Path of the picture.
    """
    from matplotlib.figure import Figure  # slow to import

    _, points = principal_components(rows.mu.astype(float))
    points = np.column_stack([points, np.zeros(len(points))])[:, :2]  # K may be 1
    figure = Figure(figsize=(9, 4), layout="constrained")
    by_class, by_phase = figure.subplots(1, 2)
    for name in np.unique(rows.unit_class):
        members = points[rows.unit_class == name]
        by_class.scatter(*members.T, s=2, label=f"class {name}", rasterized=True)
    by_class.legend(markerscale=4)
    dots = by_phase.scatter(*points.T, c=rows.phase, s=2, rasterized=True)
    figure.colorbar(dots, ax=by_phase, label="share of the episode")
    for axes in (by_class, by_phase):
        axes.set_xlabel("first component of mu")
        axes.set_ylabel("second component")
    figure.savefig(path, dpi=120)
