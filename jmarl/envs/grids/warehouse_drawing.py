"""Rendering of a warehouse as a scene."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from jmarl.envs.grids.warehouse_layout import STEPS, Layout
from jmarl.envs.scene import (
    Background,
    Disc,
    LegendEntry,
    Line,
    Rectangle,
    Scene,
    cell_areas,
)


ROBOT, LOADED = "tab:blue", "tab:orange"
SHELF_COLOR, REQUEST_COLOR, GOAL_COLOR = "tab:gray", "tab:red", "tab:green"
SHELF_OPACITY = 0.6
INSET = 0.1
"""Distance of a shelf from the edge of its cell."""
RADIUS = 0.3
LEGEND = (
    LegendEntry("robot", ROBOT, "disc"),
    LegendEntry("robot with a shelf", LOADED, "disc"),
    LegendEntry("shelf", SHELF_COLOR),
    LegendEntry("requested shelf", REQUEST_COLOR),
    LegendEntry("goal", GOAL_COLOR),
)


def scene(
    layout: Layout,
    state: Any,
) -> Scene:
    """Return the scene of one warehouse; a cell has side 1.

    Args:
        layout: Floor of the warehouse.
        state: ``State`` of NumPy arrays.
    """
    robots = list(_robots(layout, state))
    return Scene(
        width=layout.width,
        height=layout.height,
        discs=tuple(robots),
        lines=tuple(_headings(robots, state)),
        caption=f"deliveries {int(state.delivered)}",
        areas=tuple(_shelves(layout, state)),
        legend=LEGEND,
        background=_background(layout),
        origin=(0.5, layout.height - 0.5),
        y_down=True,
    )


def _background(layout: Layout) -> Background:
    """Return the goals and the cells for shelves."""
    homes = _to_scene(layout, ~layout.highway)
    goals = np.zeros(layout.n_cells, bool)
    goals[list(layout.goals)] = True
    return Background(
        areas=(
            *cell_areas(homes, SHELF_COLOR, 0.15),
            *cell_areas(_to_scene(layout, goals), GOAL_COLOR),
        )
    )


def _to_scene(
    layout: Layout,
    cells: np.ndarray,
) -> np.ndarray:
    """Return a mask of cells as ``[x, y]``, without walls, with y pointing up."""
    return cells.reshape(-1, layout.stride)[-2:0:-1, 1:-1].T


def _shelves(
    layout: Layout,
    state: Any,
) -> Iterator[Rectangle]:
    for cell in np.flatnonzero(state.shelves).tolist():
        x, y = layout.place(np.array(cell)).tolist()
        left, bottom = x + INSET, layout.height - 1 - y + INSET
        side = 1 - 2 * INSET
        color = REQUEST_COLOR if state.shelves[cell] == 2 else SHELF_COLOR
        yield Rectangle(
            left,
            bottom,
            left + side,
            bottom + side,
            color,
            SHELF_OPACITY,
        )


def _robots(
    layout: Layout,
    state: Any,
) -> Iterator[Disc]:
    for i, (x, y) in enumerate(layout.place(state.cell).tolist()):
        loaded = bool(state.carrying[i])
        yield Disc(
            x=x + 0.5,
            y=layout.height - 0.5 - y,
            radius=RADIUS,
            color=LOADED if loaded else ROBOT,
            label=str(i),
            name=f"robot {i}",
            details=(("load", "shelf" if loaded else "-"),),
            agent=i,
        )


def _headings(
    robots: list[Disc],
    state: Any,
) -> Iterator[Line]:
    """Yield a line from each robot towards the cell ahead."""
    for robot, direction in zip(
        robots,
        state.direction.tolist(),
        strict=True,
    ):
        dx, dy = STEPS[direction]
        yield Line(
            robot.x,
            robot.y,
            robot.x + 0.5 * dx,
            robot.y - 0.5 * dy,
            "black",
        )
