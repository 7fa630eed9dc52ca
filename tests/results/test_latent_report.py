"""Report on latents: known values, a slow twin, and controls."""

import numpy as np
import pytest

from jmarl.results.latent_report import (
    LatentRows,
    latent_report,
    principal_components,
    probe_and_control,
    silhouette,
)


RNG = np.random.default_rng(0)
LABELS = np.repeat([0, 1, 4], [40, 80, 120])
EPISODE = np.arange(len(LABELS)) // 2 % 20


def clusters(distance):
    """Draw rows around one center for each class."""
    centers = distance * np.eye(5)[LABELS]
    return centers + RNG.normal(size=centers.shape)


def silhouette_twin(x, labels):
    values = []
    for i, row in enumerate(x):
        distance = np.linalg.norm(x - row, axis=1)
        others = np.arange(len(x)) != i
        within = distance[others & (labels == labels[i])].mean()
        names = set(labels) - {labels[i]}
        nearest = min(distance[labels == name].mean() for name in names)
        values.append((nearest - within) / max(nearest, within))
    return np.mean(values)


def test_the_silhouette_equals_a_loop_over_rows():
    x = clusters(2.0)
    np.testing.assert_allclose(
        silhouette(x, LABELS), silhouette_twin(x, LABELS), atol=1e-6
    )
    assert silhouette(x, np.zeros(len(x), int)) is None


def test_components_are_the_eigenvectors_of_the_covariance():
    x = RNG.normal(size=(500, 3)) * [1.0, 5.0, 2.0]
    shares, points = principal_components(x)
    variance = np.sort(np.linalg.eigvalsh(np.cov(x.T)))[::-1]
    np.testing.assert_allclose(shares, variance / variance.sum(), rtol=1e-9)
    np.testing.assert_allclose(np.var(points, 0, ddof=1), variance, rtol=1e-9)


def test_a_probe_reads_what_is_linear_and_its_control_does_not():
    found = probe_and_control(clusters(8.0), LABELS.astype(float), EPISODE)
    assert found["classes"] == 3 and found["accuracy"] == 1.0
    assert abs(found["shuffled"] - 1 / 3) < 0.1
    assert found["shuffled"] < found["shuffled_95"] < found["accuracy"]


def test_a_probe_of_noise_is_at_chance_despite_unequal_classes():
    x = RNG.normal(size=(6000, 3))
    labels = (RNG.random(6000) < 0.1).astype(float)
    found = probe_and_control(x, labels, np.arange(6000) // 100)
    assert abs(found["accuracy"] - 0.5) < 0.06


def test_rows_without_label_are_left_out():
    labels = np.where(LABELS == 4, np.nan, LABELS)
    found = probe_and_control(clusters(8.0), labels, EPISODE)
    assert (found["rows"], found["classes"], found["accuracy"]) == (120, 2, 1.0)


@pytest.mark.parametrize("labels", [np.zeros(240), np.full(240, np.nan)])
def test_a_probe_of_one_class_is_not_defined(labels):
    assert probe_and_control(clusters(1.0), labels, EPISODE)["accuracy"] is None


def test_the_report_has_results_for_mu_and_latent():
    numbers = np.zeros(len(LABELS))
    mu, latent = clusters(8.0), clusters(0.0)
    rows = LatentRows(mu, latent, LABELS, EPISODE, numbers, numbers, numbers, numbers)
    report = latent_report(rows)
    assert (report["rows"], report["episodes"]) == (240, 20)
    assert report["mu"]["unit_class"]["accuracy"] == 1.0
    assert report["latent"]["unit_class"]["accuracy"] < 0.6
    assert report["mu"]["silhouette"] > 0.5 > report["latent"]["silhouette"]
