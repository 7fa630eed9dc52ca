"""Observations of the allies and the central state, built once per step."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jmarl.envs.battle.rules import Rules
from jmarl.envs.battle.scenario import BattleConfig, Scenario
from jmarl.envs.battle.state import ObservableState, distance, present, trait
from jmarl.types import CentralState, EntityObs, Group, Spec


class ObsCodec(NamedTuple):
    """Codec of observations: ``types.ObsCodec`` for battles."""

    scenario: Scenario
    config: BattleConfig

    def encode(self, state: ObservableState) -> ObservableState:
        """Return the fields of a state that determine the observations."""
        names = ObservableState.__dataclass_fields__
        return ObservableState(**{name: getattr(state, name) for name in names})

    def decode(self, encoded_obs: ObservableState) -> EntityObs:
        """Return the observations of an encoded state."""
        return observe(self.scenario, self.config, encoded_obs)

    def empty(self, *batch: int) -> ObservableState:
        """Return zeros with the shapes of encoded observations."""
        units = (*batch, self.scenario.n_units)
        return ObservableState(
            position=jnp.zeros((*units, 2)),
            health=jnp.zeros(units),
            cooldown=jnp.zeros(units),
            kind=jnp.zeros(units, jnp.int32),
            heading=jnp.zeros((*units, 2)),
            attack=jnp.zeros(units, jnp.int32),
            steps=jnp.zeros(batch, jnp.int32),
        )


def spec(scenario: Scenario, config: BattleConfig) -> Spec:
    """Return the shapes and action targets of a battle.

    The own actions are followed by the attacks on each enemy.
    """
    rules = scenario.rules
    n_allies = scenario.n_allies
    n_enemies = scenario.n_enemies
    # own: health fraction, x and y over the map size, cooldown ratio, type
    own_width = 4 + rules.n_unit_types
    width = own_width + 2 + config.last_targeted
    # Entity slots of an observer: N - 1 allies, then M enemies.
    enemy_slots = tuple(range(n_allies - 1, n_allies - 1 + n_enemies))
    return Spec(
        n_agents=n_allies,
        n_actions=rules.n_own_actions + n_enemies,
        own_width=own_width,
        groups=(
            Group("allies", n_allies - 1, width, n_allies, own_width),
            Group("enemies", n_enemies, width, n_enemies, own_width),
        ),
        global_width=1,
        episode_limit=episode_limit(scenario, config),
        action_target=(-1,) * rules.n_own_actions + enemy_slots,
        n_unit_classes=rules.n_unit_types,
        class_features=tuple(range(4, own_width)),
        outcomes=("won",),
        obs_codec=ObsCodec(scenario, config),
        fixed_team=not scenario.choices,
    )


def episode_limit(scenario: Scenario, config: BattleConfig) -> int:
    """Return the maximum number of steps in an episode."""
    limit = scenario.limit
    if config.smac_limit and scenario.smac_limit:
        limit = scenario.smac_limit
    return limit if config.exact_limit else limit + 1


def observe(
    scenario: Scenario, config: BattleConfig, state: ObservableState
) -> EntityObs:
    """Return the entity observations of all allies and the central state."""
    n = scenario.n_allies
    alive = state.alive
    exists = present(scenario, state.kind)
    own = _own_rows(scenario.rules, state)  # [B, U, F]
    seen, in_range = _visibility(scenario, state)  # [B, N, U] each
    rows = _entity_rows(scenario, config, state, seen)
    limit = episode_limit(scenario, config)
    return EntityObs(
        own=own[:, :n],
        rows=rows,
        mask=_split_groups(scenario, seen),
        avail=_available_actions(
            scenario.rules, alive[:, :n], exists[:, :n], in_range[:, :, n:]
        ),
        alive=alive[:, :n],
        joined=jnp.zeros((alive.shape[0], n), bool),
        unit_class=jnp.where(exists, state.kind, 0)[:, :n],
        state=CentralState(
            features=(state.steps / limit)[:, None],
            rows=(own[:, :n], own[:, n:]),
            mask=(alive[:, :n], alive[:, n:]),
        ),
    )


def _own_rows(rules: Rules, state: ObservableState) -> Float[Array, "B U F"]:
    """Return each unit's own features in absolute coordinates; zero for dead units."""
    health, position, cooldown, kind = _features(rules, state)
    rows = jnp.concatenate([health, position / rules.map_size, cooldown, kind], axis=-1)
    return jnp.where(state.alive[..., None], rows, 0.0)


def _features(
    rules: Rules, state: ObservableState
) -> tuple[Array, Array, Array, Array]:
    """Return health fraction, position, cooldown ratio and one-hot type, ``[B, U, ...]`` each."""
    health = state.health / trait(rules, "health", state.kind)
    ratio = state.cooldown / trait(rules, "cooldown", state.kind)
    cooldown = jnp.clip(ratio, 0.0, 1.0)
    return (
        health[..., None],
        state.position,
        cooldown[..., None],
        jax.nn.one_hot(state.kind, rules.n_unit_types),
    )


def _visibility(
    scenario: Scenario, state: ObservableState
) -> tuple[Bool[Array, "B N U"], Bool[Array, "B N U"]]:
    """Return the masks of units within the sight range and attack range of each ally.

    Both units must be alive.
    """
    n = scenario.n_allies
    x = state.position[..., 0]
    y = state.position[..., 1]
    alive = state.alive
    kind = state.kind[:, :n, None]
    dx = x[:, None] - x[:, :n, None]  # [B, N, U]
    dy = y[:, None] - y[:, :n, None]
    apart = distance(dx, dy)
    both_alive = alive[:, None] & alive[:, :n, None]
    rules = scenario.rules
    seen = both_alive & (apart < trait(rules, "sight_range", kind))
    in_range = both_alive & (apart < trait(rules, "attack_range", kind))
    return seen, in_range


def _entity_rows(
    scenario: Scenario,
    config: BattleConfig,
    state: ObservableState,
    seen: Bool[Array, "B N U"],
) -> tuple[Float[Array, "B N N-1 F"], Float[Array, "B N M F"]]:
    """Return the rows of the other allies and of the enemies.

    Only the position depends on the observer. Thus one row is built for each seen unit, and the
    observer's origin and scale are applied to the two position columns.
    """
    n = scenario.n_allies
    health, position, cooldown, kind = _features(scenario.rules, state)
    columns = [health, position, state.heading]
    if config.last_targeted:
        columns.append(_last_targeted(scenario, state))
    unit = jnp.concatenate([*columns, cooldown, kind], axis=-1)  # [B, U, F]
    origin = jnp.zeros_like(unit[:, :n]).at[..., 1:3].set(position[:, :n])
    ones = jnp.ones_like(unit[:, :n])
    sight = trait(scenario.rules, "sight_range", state.kind[:, :n])
    scale = ones.at[..., 1:3].set(sight[..., None])

    def relative(mask: Array, rows: Array) -> Array:
        mask = mask[..., None]  # [B, N, E, 1]
        scaled = (rows - origin[:, :, None]) / scale[:, :, None]
        return jnp.where(mask, scaled, 0.0)

    allies = unit[:, None, :n]
    enemies = unit[:, None, n:]
    before = _before_observer(n)[None, :, :, None]
    other_allies = jnp.where(before, allies[:, :, : n - 1], allies[:, :, 1:])
    ally_mask, enemy_mask = _split_groups(scenario, seen)
    return relative(ally_mask, other_allies), relative(enemy_mask, enemies)


def _split_groups(
    scenario: Scenario, units: Bool[Array, "B N U"]
) -> tuple[Bool[Array, "B N N-1"], Bool[Array, "B N M"]]:
    """Split a mask over units into an observer's slots: other allies in order, then enemies."""
    n = scenario.n_allies
    before = _before_observer(n)[None]
    allies = jnp.where(before, units[:, :, : n - 1], units[:, :, 1:n])
    return allies, units[:, :, n:]


def _before_observer(n: int) -> Bool[Array, "{n} {n}-1"]:
    """Return whether slot e of ally i holds ally e; later slots hold ally e + 1."""
    return jnp.arange(n - 1)[None] < jnp.arange(n)[:, None]


def _last_targeted(scenario: Scenario, state: ObservableState) -> Float[Array, "B U 1"]:
    """Return each unit's last attack over the largest index of its actions."""
    n_own = scenario.rules.n_own_actions
    n_actions = [n_own + scenario.n_enemies] * scenario.n_allies
    n_actions += [n_own + scenario.n_allies] * scenario.n_enemies
    last_action = jnp.asarray(n_actions)[None] - 1
    return (state.attack / last_action)[..., None]


def _available_actions(
    rules: Rules,
    alive: Bool[Array, "B N"],
    exists: Bool[Array, "B N"],
    in_range: Bool[Array, "B N M"],
) -> Bool[Array, "B N A"]:
    """Return the availability of own actions and of attacks, of which absent agents have none."""
    units = {"alive": alive, "always": exists}
    blocks = []
    for who, actions in itertools.groupby(rules.own_actions, lambda a: a.available):
        block = (*alive.shape, len(list(actions)))
        blocks.append(jnp.broadcast_to(units[who][..., None], block))
    return jnp.concatenate([*blocks, in_range], axis=-1)
