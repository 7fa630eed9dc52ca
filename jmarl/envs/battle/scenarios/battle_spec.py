"""Hashable descriptions of battles: teams, starts, orders, terrain, zones and rewards.

This module does not import JAX.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from jmarl.envs.battle.combat.unit_table import ENEMY_UNITS, UNITS, Ability
from jmarl.envs.battle.scenarios.terrain import Terrain, get_terrain


UnitTable = tuple[Any, ...]
"""Rows of ``UnitRow``, or of ``UnitType`` under the rules of SMAX."""


class Place(NamedTuple):
    """Point of the map, drawn in each episode from the segment between two points."""

    x: float
    y: float
    to_x: float
    to_y: float

    @classmethod
    def point(cls, x: float, y: float) -> Place:
        """Return a place that is always the same point."""
        return cls(x, y, x, y)

    def points(self) -> list[tuple[float, float]]:
        """List points of the segment with both ends, at most a quarter of a cell apart."""
        along_x, along_y = self.to_x - self.x, self.to_y - self.y
        count = math.ceil(4 * math.hypot(along_x, along_y))
        shares = [i / count for i in range(count + 1)] if count else [0.0]
        return [
            (self.x + share * along_x, self.y + share * along_y) for share in shares
        ]


class Steps(NamedTuple):
    """Step of an episode, drawn uniformly from a range that includes both ends."""

    first: int
    last: int


ORDERS = ("attack_move", "pursue", "hold")
"""Kinds of orders."""


class Order(NamedTuple):
    """Order of enemies at the start of an episode.

    ``attack_move`` walks to a place and attacks allies near the way. ``pursue`` attacks the nearest
    ally until it is dead. ``hold`` attacks allies within range, and stays without a target.
    """

    kind: Literal["attack_move", "pursue", "hold"]
    place: Place | None = None


class Group(NamedTuple):
    """Units of a team that start at one place."""

    units: tuple[tuple[str, int], ...]
    """Names and counts."""
    at: Place
    arrives: Steps = Steps(0, 0)
    """Step at which the group appears. Before, its units are absent."""
    leaves: Steps | None = None
    """Step at which the living units of the group are withdrawn."""
    order: Order | None = None
    """None for allies, and for rules without orders."""


class Zone(NamedTuple):
    """Part of the ground with an effect on the units of both teams. Flyers are not affected.

    ``slow`` multiplies the speed by the amount. ``conceal`` hides units from opponents farther away
    than the amount. ``damage`` reduces health by the amount per second.
    """

    effect: Literal["slow", "conceal", "damage"]
    amount: float
    shape: Literal["rectangle", "circle"]
    bounds: tuple[float, ...]
    """Corners (x, y, x, y) of a rectangle, or (x, y, radius) of a circle."""


class Weights(NamedTuple):
    """Weights of an agent's individual reward. The defaults give SMAC's team reward.

    All terms are scaled like SMAC's reward, by 20 over the maximum reward.
    """

    damage: float = 1.0
    """Health and shields that all enemies lose by damage."""
    kills: float = 1.0
    """10 for each killed enemy."""
    win: float = 1.0
    """200 for a win."""
    healing: float = 0.0
    """Health that all allies regain by healing."""
    survival: float = 0.0
    """Minus the health and shield that the agent loses by damage."""
    sight: float = 0.0
    """Number of living enemies that the agent sees."""


@dataclass(frozen=True)
class Battle:
    """Battle between two given teams.

    Attributes:
        name: short name, without prefix or folder.
        rules: rule set.
        terrain: walkable cells.
        limit: step limit of an episode.
        allies: groups of allies, which are the agents.
        enemies: groups of enemies.
        units: unit table of the allies.
        enemy_units: unit table of the enemies; equal names and order.
        abilities: abilities beyond attacks and healing.
        zones: parts of the ground with an effect.
        team_reward: share of SMAC's team reward in an agent's reward.
        reward: weights of the individual reward by unit type; SMAC's for missing types.
        enemy_scale: factor on the damage of the enemies.
        win_rates: measured win rates of scripted players, by name.
    """

    name: str
    rules: str
    terrain: Terrain
    limit: int
    allies: tuple[Group, ...]
    enemies: tuple[Group, ...]
    units: UnitTable
    enemy_units: UnitTable
    abilities: tuple[Ability, ...] = ()
    zones: tuple[Zone, ...] = ()
    team_reward: float = 1.0
    reward: tuple[tuple[str, Weights], ...] = ()
    enemy_scale: float = 1.0
    win_rates: tuple[tuple[str, float], ...] = ()

    @property
    def n_allies(self) -> int:
        """Number of allies N, which are the agents."""
        return team_size(self.allies)

    @property
    def n_enemies(self) -> int:
        """Number of enemies M."""
        return team_size(self.enemies)

    @property
    def max_reward(self) -> float:
        """Maximum sum of the unscaled rewards: 10 per enemy, 200, and all health and shields."""
        rows = [self.enemy_units[kind] for kind, _ in self.roster(self.enemies)]
        strength = sum(row.health + getattr(row, "shield", 0.0) for row in rows)
        return 10 * len(rows) + 200 + strength

    def roster(self, groups: tuple[Group, ...]) -> list[tuple[int, int]]:
        """List the units of a team as (type id, group), ordered by type and then by group."""
        names = [row.name for row in self.units]
        members = [
            (names.index(unit), rank)
            for rank, group in enumerate(groups)
            for unit, count in group.units
            for _ in range(count)
        ]
        return sorted(members)

    def describe(self) -> str:
        """Return a one-line description."""
        teams = f"{self._describe(self.allies)} v {self._describe(self.enemies)}"
        return f"{teams}; {self.terrain.name}, {self.limit} steps"

    def _describe(self, groups: tuple[Group, ...]) -> str:
        kinds = [self.units[kind].name for kind, _ in self.roster(groups)]
        return ", ".join(f"{kinds.count(kind)} {kind}" for kind in dict.fromkeys(kinds))


@dataclass(frozen=True)
class DrawnBattle:
    """Battle of SMACv2: unit types and starts are drawn in each episode.

    Attributes:
        race: key of ``unit_table.RACES``.
        n_allies: number of allies N, which are the agents.
        n_enemies: number of enemies M.
        limit: step limit of an episode.
    """

    race: str
    n_allies: int
    n_enemies: int
    limit: int = 200
    rules: str = "smacv2"
    terrain: Terrain = field(default_factory=lambda: get_terrain("open"))
    units: UnitTable = UNITS
    enemy_units: UnitTable = ENEMY_UNITS
    enemy_scale: float = 1.0

    @property
    def name(self) -> str:
        """Return the short name, such as ``terran_5v5``."""
        return f"{self.race}_{self.n_allies}v{self.n_enemies}"

    def describe(self) -> str:
        """Return a one-line description."""
        sizes = f"{self.n_allies} v {self.n_enemies}"
        return f"{sizes} {self.race} units of drawn types, drawn starts (SMACv2)"


@dataclass(frozen=True)
class JoinedBattle:
    """Battles with the same rules, from which each episode is drawn with equal probability.

    Attributes:
        choices: the battles.
    """

    choices: tuple[Battle | DrawnBattle, ...]

    @property
    def n_allies(self) -> int:
        """Number of allies of the largest team N."""
        return max(choice.n_allies for choice in self.choices)

    @property
    def n_enemies(self) -> int:
        """Number of enemies of the largest team M."""
        return max(choice.n_enemies for choice in self.choices)

    def describe(self) -> str:
        """Return a one-line description."""
        choices = [choice.describe() for choice in self.choices]
        return "drawn for each episode: " + ", or ".join(choices)


AnyBattle = Battle | DrawnBattle | JoinedBattle


def team_size(groups: tuple[Group, ...]) -> int:
    """Return the number of units in all groups."""
    return sum(count for group in groups for _, count in group.units)
