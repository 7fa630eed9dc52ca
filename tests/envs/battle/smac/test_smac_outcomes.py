"""Rewards and ends of episodes: wins, losses, draws and the time limit."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from smac_worlds import EAST, N_OWN_ACTIONS, NO_OP, Case, Trace, arena

from jmarl.envs import make


CENTER = 16.0
LIMIT = 200
"""Step limit of an arena."""
RUNNING, WON, LOST, DRAW = "running", "won", "lost", "draw"


def worth(damage: float = 0.0, kills: int = 0, wins: int = 0, rules: str = "smac"):
    """Return the reward of some damage, kills and wins in an arena."""
    raw = damage + 10 * kills + 200 * wins
    return 20 * raw / arena(rules=rules).facts.battle.max_reward


def last_duel(**state: float) -> tuple[Case, int]:
    """Return a case in which an ally shoots at the last enemy."""
    case = arena().case()
    marine = case.ally("marine", CENTER, CENTER)
    enemy = case.enemy("marine", CENTER + 4.0, CENTER, **state)
    case.aim(marine, enemy)
    return case, marine


def verdict(trace: Trace, case: int) -> str:
    """Return the verdict on the last step of a trace."""
    terminated, won = trace.terminated[-1, case], trace.won[-1, case]
    assert terminated or not won
    if not terminated:
        return RUNNING
    alive = trace.state.health[-1, case] > 0
    if won:
        return WON
    return LOST if alive[arena().n :].any() else DRAW


# Living allies, living enemies, and the verdicts of SMAC and SMACv2.
ENDS = [
    (["marine"], ["marine"], RUNNING, RUNNING),
    (["marine", "medivac"], ["marine", "medivac"], RUNNING, RUNNING),
    (["medivac"], ["marine"], LOST, LOST),
    (["medivac", "medivac"], ["marine"], LOST, LOST),
    ([], ["marine"], LOST, LOST),
    (["marine"], [], WON, WON),
    (["marine"], ["medivac"], WON, WON),
    (["marine"], ["medivac", "medivac"], RUNNING, WON),
    ([], [], DRAW, DRAW),
]


@pytest.mark.parametrize("rules", ["smac", "smacv2"])
def test_a_team_without_fighters_is_beaten(rules):
    """In SMAC, the enemies are beaten if a single healer is left, in SMACv2 if only healers."""
    cases = []
    for allies, enemies, *_ in ENDS:
        case = arena(rules=rules).case()
        for k, name in enumerate(allies):
            case.ally(name, 2.0 + 2 * k, 2.0)
        for k, name in enumerate(enemies):
            case.enemy(name, 28.0 + 2 * k, 28.0)
        cases.append(case)
    trace = arena(rules=rules).run(cases)
    column = 2 if rules == "smac" else 3
    found = [verdict(trace, b) for b in range(len(cases))]
    assert found == [row[column] for row in ENDS]
    wins = trace.won[0, : len(cases)]
    assert trace.reward[0, : len(cases)] == pytest.approx(
        wins * worth(wins=1, rules=rules)
    )
    assert not trace.truncated.any()


@pytest.mark.parametrize("rules", ["smac", "smacv2"])
def test_two_beaten_teams_draw(rules):
    case = arena(rules=rules).case()
    case.ally("medivac", 2.0, 2.0)
    case.enemy("medivac", 28.0, 28.0)
    trace = arena(rules=rules).run([case])
    assert trace.terminated[0, 0]
    assert not trace.won[0, 0]
    assert trace.reward[0, 0] == 0


def test_units_that_kill_each_other_draw_without_the_bonus():
    case, marine = last_duel(health=6.0, cooldown=0.0)
    case.changes[marine]["health"] = 6.0
    trace = arena().run([case])
    assert verdict(trace, 0) == DRAW
    assert trace.reward[0, 0] == pytest.approx(worth(damage=6, kills=1))


def test_a_win_pays_damage_kill_and_bonus():
    case, _ = last_duel(health=5.0)
    trace = arena().run([case])
    assert verdict(trace, 0) == WON
    assert trace.reward[0, 0] == pytest.approx(worth(damage=5, kills=1, wins=1))


def test_damage_to_health_and_shield_pays_and_own_losses_do_not():
    case = arena().case()
    zealot = case.ally("zealot", CENTER, CENTER)
    case.aim(zealot, case.enemy("zealot", CENTER + 0.9, CENTER, shield=6.0))
    case.ally("marine", 2.0, 2.0, health=6.0)
    case.enemy("marine", 2.0, 6.0, cooldown=0.0)
    trace = arena().run([case])
    assert trace.reward[0, 0] == pytest.approx(worth(damage=6 + 1 + 7))


def test_the_dead_pay_once():
    case, _ = last_duel(health=5.0)
    case.enemy("marine", CENTER, CENTER + 4.5)
    rewards = arena().run([case], steps=3).reward[:, 0]
    assert rewards == pytest.approx([worth(damage=5, kills=1), 0, 0])


def recovering(kind: str) -> Case:
    """Return a case in which an enemy recovers, far from an ally."""
    case = arena().case()
    case.ally("marine", 2.0, 2.0)
    if kind == "healing":
        case.enemy("medivac", CENTER, CENTER)
        case.enemy("marine", CENTER + 2.0, CENTER, health=10.0)
    elif kind == "shield":
        case.enemy("zealot", CENTER, CENTER, shield=10.0, calm=20.0)
    else:
        case.enemy("zergling", CENTER, CENTER, health=10.0)
    return case


KINDS = ("healing", "shield", "regeneration")


def test_recovery_of_enemies_never_changes_the_reward():
    trace = arena().run([recovering(kind) for kind in KINDS], steps=2)
    enemies = slice(arena().n, None)
    strength = (trace.state.health + trace.state.shield)[..., enemies].sum(-1)
    assert (np.diff(strength[:, : len(KINDS)], axis=0) > 0).all()
    assert not trace.reward.any()


def test_damage_pays_in_full_while_the_enemy_recovers():
    case = arena().case()
    marauder = case.ally("marauder", CENTER, CENTER)
    marine = case.enemy("marine", CENTER + 4.0, CENTER, health=40.0)
    case.enemy("medivac", CENTER + 6.0, CENTER)
    case.aim(marauder, marine)
    trace = arena().run([case], steps=2)
    # A shot in the first step, none in the second, and 4.5 health healed in either.
    assert np.diff(trace.state.health[:, 0, marine]) == pytest.approx([-5.5, 4.5])
    assert trace.reward[:, 0] == pytest.approx([worth(damage=10), 0.0])


def test_smacs_own_reward_pays_for_recovery():
    """SMAC takes the absolute value of the change of health and shields."""
    quirky = arena(smac_reward=True)
    cases = [recovering(kind) for kind in KINDS]
    trace = quirky.run(cases)
    enemies = slice(quirky.n, None)
    strength = (trace.state.health + trace.state.shield)[..., enemies].sum(-1)
    change = np.diff(strength, axis=0)[:, : len(KINDS)]
    rewards = trace.reward[:, : len(KINDS)]
    assert rewards == pytest.approx(worth(1) * change, abs=1e-6)
    assert (rewards > 0).all()


def test_a_baneling_that_fires_pays_as_if_it_were_killed():
    """Else a win on so_many_baneling would return less than 20."""
    case = arena().case()
    case.ally("zealot", CENTER, CENTER)
    case.enemy("baneling", CENTER + 0.9, CENTER, cooldown=0.0)
    case.enemy("marine", 2.0, 2.0)
    trace = arena().run([case])
    assert trace.reward[0, 0] == pytest.approx(worth(damage=30, kills=1))


def focus(timestep) -> np.ndarray:
    """Return actions that attack the first enemy on offer, or move east."""
    avail = np.asarray(timestep.obs.avail)
    attacks = avail[..., N_OWN_ACTIONS:]
    first = N_OWN_ACTIONS + attacks.argmax(-1)
    action = np.where(attacks.any(-1), first, EAST)
    return np.where(avail[..., NO_OP], NO_OP, action)


def returns_of_wins(name: str, batch: int = 16) -> np.ndarray:
    """Return the sums of the rewards of won episodes, one per environment at most."""
    env = make(name)
    step = jax.jit(env.step)
    state, timestep = jax.jit(env.reset, static_argnums=1)(jax.random.key(0), batch)
    total, ended, won = np.zeros(batch), np.zeros(batch, bool), np.zeros(batch, bool)
    for t in range(env.spec.episode_limit):
        state, timestep = step(jax.random.key(t), state, focus(timestep))
        total += np.where(ended, 0, np.asarray(timestep.reward)[:, 0])
        won |= ~ended & np.asarray(timestep.info["won"])
        ended |= np.asarray(timestep.last)
        if ended.all():
            break
    return total[won]


@pytest.mark.parametrize("name", ["smac_6m2M_vs_3m1M", "smac_5s1Z_vs_1s1Z"])
def test_a_win_without_recovery_returns_20(name):
    returns = returns_of_wins(name)
    assert len(returns) > 8
    assert returns == pytest.approx(20, abs=1e-4)


def test_the_time_limit_truncates():
    case, late = (last_duel()[0] for _ in range(2))
    case.steps, late.steps = LIMIT - 1, LIMIT - 2
    trace = arena().run([case, late])
    assert arena().facts.battle.limit == arena().engine.spec.episode_limit == LIMIT
    assert trace.truncated[0, :2].tolist() == [True, False]
    assert not trace.terminated[0, :2].any()
    assert not trace.won[0, :2].any()
    assert trace.state.ended[-1, :2].tolist() == [True, False]


def test_an_end_at_the_limit_is_no_truncation():
    case, _ = last_duel(health=5.0)
    case.steps = LIMIT - 1
    trace = arena().run([case])
    assert verdict(trace, 0) == WON
    assert not trace.truncated[0, 0]
