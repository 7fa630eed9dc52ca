"""Rendering of level-based foraging as a scene."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from jmarl.envs.grids import foraging_rules as rules
from jmarl.envs.grids.grid_names import ForagingSize
from jmarl.envs.scene import Background, Disc, LegendEntry, Line, Scene


PLAYER, FOOD = "tab:blue", "tab:green"
LINE_COLOR = "tab:gray"
LEGEND = (
    LegendEntry("player with its level", PLAYER, "disc"),
    LegendEntry("food with its level", FOOD, "disc"),
)


def scene(
    size: ForagingSize,
    state: Any,
) -> Scene:
    """Return the scene of one task; a cell has side 1.

    Args:
        size: Sizes of the task.
        state: ``State`` of NumPy arrays without a batch axis.
    """
    left = sum(int(rules.level_of(item)) for item in state.food)
    return Scene(
        width=size.columns,
        height=size.rows,
        discs=(
            *_food(size, state),
            *_players(size, state),
        ),
        lines=(),
        caption=f"collected {int(state.spawned) - left} of {int(state.spawned)}",
        legend=LEGEND,
        background=Background(lines=tuple(_grid_lines(size))),
        origin=(0.5, size.rows - 0.5),
        y_down=True,
    )


def _grid_lines(size: ForagingSize) -> Iterator[Line]:
    for x in range(size.columns + 1):
        yield Line(
            x,
            0,
            x,
            size.rows,
            LINE_COLOR,
            "dotted",
        )
    for y in range(size.rows + 1):
        yield Line(
            0,
            y,
            size.columns,
            y,
            LINE_COLOR,
            "dotted",
        )


def _center(
    size: ForagingSize,
    x: Any,
) -> tuple[float, float]:
    """Return the center of the cell of an entity."""
    row, column = int(rules.row_of(x)), int(rules.column_of(x))
    return column + 0.5, size.rows - 0.5 - row


def _food(
    size: ForagingSize,
    state: Any,
) -> Iterator[Disc]:
    for i, item in enumerate(state.food):
        if level := int(rules.level_of(item)):
            x, y = _center(size, item)
            yield Disc(
                x,
                y,
                0.25,
                FOOD,
                str(level),
                name=f"food {i}",
            )


def _players(
    size: ForagingSize,
    state: Any,
) -> Iterator[Disc]:
    for i, player in enumerate(state.players):
        x, y = _center(size, player)
        level = int(rules.level_of(player))
        details = (("level", str(level)),)
        yield Disc(
            x, y, 0.4, PLAYER, str(level), name=f"player {i}", details=details, agent=i
        )
