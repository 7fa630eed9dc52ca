"""A warehouse equals the original package ``rware`` step by step."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import warehouse_twin as twin

from jmarl.envs.grids import warehouse_rules as rules
from jmarl.envs.grids.grid_names import warehouse_size
from jmarl.envs.grids.warehouse_layout import make_layout
from jmarl.envs.grids.warehouse_moves import mention_order, resolve


def layout_of(name):
    return make_layout(warehouse_size(name))


@cache
def compiled(name):
    """Return ``advance`` and ``observe`` of a batch of warehouses."""
    layout = layout_of(name)

    @jax.jit
    @jax.vmap
    def step(state, action, draws, order):
        after = rules.advance(layout, state, action, draws, order)
        return after, rules.observe(layout, after.state)

    return step


def stack(trees):
    return jax.tree.map(
        lambda *leaves: jnp.stack(leaves),
        *trees,
    )


def compare(
    name,
    choose,
    batch,
    steps=500,
):
    """Play ``batch`` episodes beside the original; return rewards and the rows with a jam."""
    layout = layout_of(name)
    originals = [twin.original(name, seed) for seed in range(batch)]
    rng = np.random.default_rng(0)
    state = stack([twin.to_state(layout, env) for env in originals])
    total, blocked = np.zeros(batch), 0
    for t in range(steps):
        actions = [choose(env, rng) for env in originals]
        orders = [
            twin.chain_order(*pair) for pair in zip(originals, actions, strict=True)
        ]
        results = [twin.step(*pair) for pair in zip(originals, actions, strict=True)]
        observations, rewards, done, draws = map(
            np.stack,
            zip(*results, strict=True),
        )
        before = state
        (state, reward), own = compiled(name)(
            state, jnp.array(np.stack(actions)), draws, np.stack(orders)
        )
        np.testing.assert_array_equal(own, observations, err_msg=f"features, step {t}")
        np.testing.assert_array_equal(reward, rewards, err_msg=f"reward, step {t}")
        expected = [twin.to_state(layout, env) for env in originals]
        for field in ("cell", "direction", "carrying", "shelves"):
            theirs = np.stack([getattr(one, field) for one in expected])
            np.testing.assert_array_equal(
                getattr(state, field),
                theirs,
                err_msg=field,
            )
        total += rewards.sum(1)
        stays = np.asarray(before.cell == state.cell)
        blocked += int((stays & (np.stack(actions) == rules.FORWARD)).sum())
    assert done.all() == (steps == 500)
    np.testing.assert_array_equal(state.delivered, total)
    return total, blocked


def act_at_random(env, rng):
    return rng.integers(0, 5, len(env.agents))


def rush(env, rng):
    """Mostly drive forward and load, so that robots meet and carry."""
    return rng.choice(
        5,
        len(env.agents),
        p=[0.02, 0.6, 0.13, 0.13, 0.12],
    )


def test_random_and_scripted_episodes_equal_the_original():
    _, blocked = compare(
        "rware_tiny-4ag",
        rush,
        batch=4,
        steps=60,
    )
    assert blocked > 20
    total, _ = compare(
        "rware_tiny-4ag",
        twin.drive,
        batch=4,
        steps=150,
    )
    assert total.sum() > 5


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "choose", "batch"),
    [
        ("rware_tiny-2ag", act_at_random, 30),
        ("rware_tiny-4ag", act_at_random, 30),
        ("rware_tiny-19ag-hard", rush, 20),
        ("rware_small-4ag-easy", rush, 20),
        ("rware_tiny-2ag", twin.drive, 30),
        ("rware_tiny-4ag", twin.drive, 30),
        ("rware_small-4ag", twin.drive, 20),
        ("rware_medium-6ag", twin.drive, 10),
        ("rware_large-8ag-easy", twin.drive, 10),
    ],
)
def test_200_episodes_equal_the_original(name, choose, batch):
    total, _ = compare(name, choose, batch)
    if choose is twin.drive:
        assert total.mean() > 3  # robots may block each other for a whole episode


SITUATIONS = {
    "two robots want the same cell": (
        [
            (0, 2, "down"),
            (0, 4, "up"),
        ],
        "FF",
        [True, False],
    ),
    "the longer chain goes first": (
        [
            (0, 2, "down"),
            (0, 4, "up"),
            (0, 5, "up"),
        ],
        "FFF",
        [False, True, True],
    ),
    "robots do not exchange places": (
        [
            (0, 2, "down"),
            (0, 3, "up"),
            (0, 1, "down"),
        ],
        "FFF",
        [False, False, False],
    ),
    "a convoy moves in a line": (
        [
            (0, 2, "up"),
            (0, 3, "up"),
            (0, 4, "up"),
            (0, 5, "up"),
        ],
        "FFFF",
        [True, True, True, True],
    ),
    "a convoy stops behind a robot that stays": (
        [
            (0, 2, "up"),
            (0, 3, "up"),
            (0, 4, "up"),
            (0, 1, "up"),
        ],
        "FFFN",
        [False, False, False, False],
    ),
    "a convoy stops at a wall": (
        [
            (0, 0, "up"),
            (0, 1, "up"),
            (0, 2, "up"),
        ],
        "FFF",
        [False, False, False],
    ),
    "four robots rotate, and a fifth stays": (
        [
            (0, 0, "right"),
            (1, 0, "down"),
            (1, 1, "left"),
            (0, 1, "up"),
            (0, 2, "up"),
        ],
        "FFFFF",
        [True, True, True, True, False],
    ),
    "a load does not enter the cell of a shelf": (
        [
            (0, 2, "right", "carries"),
            (0, 3, "up"),
        ],
        "FF",
        [False, False],
    ),
    "a robot without a load drives below a shelf": (
        [(0, 2, "right")],
        "F",
        [True],
    ),
    "a load follows a load": (
        [
            (3, 2, "up", "carries"),
            (3, 3, "up", "carries"),
        ],
        "FF",
        [True, True],
    ),
    "a load waits for a load that is put down": (
        [
            (1, 2, "up", "carries"),
            (0, 2, "right", "carries"),
        ],
        "TF",
        [False, False],
    ),
}


@pytest.mark.parametrize("situation", SITUATIONS)
def test_robots_that_move(situation):
    robots, letters, moves = SITUATIONS[situation]
    name = f"rware_tiny-{len(robots)}ag"
    layout = layout_of(name)
    env = twin.original(name)
    twin.put(env, robots)
    before = twin.to_state(layout, env)
    actions = np.array(["NFLRT".index(letter) for letter in letters])
    order = twin.chain_order(env, actions)
    twin.step(env, actions)
    after = rules.advance(
        layout,
        before,
        jnp.asarray(actions),
        jnp.zeros(2),
        order,
    )
    theirs = twin.to_state(layout, env)
    np.testing.assert_array_equal(
        after.state.cell != before.cell,
        moves,
    )
    jax.tree.map(
        np.testing.assert_array_equal,
        after.state,
        theirs,
    )


def test_equally_long_chains_move_in_the_order_of_mention():
    """The cell of robot 2 is mentioned first, as the target of robot 0."""
    cell, target = jnp.array([10, 30, 11]), jnp.array([11, 20, 20])
    np.testing.assert_array_equal(
        mention_order(cell, target),
        [0, 2, 1],
    )
    moves = resolve(cell, target, mention_order(cell, target))
    np.testing.assert_array_equal(moves, [True, False, True])


@pytest.mark.parametrize("n", [3, 12])
def test_moves_equal_a_graph_search(n):
    """Random wishes, also those that no grid has, such as cycles of three."""
    rng = np.random.default_rng(n)
    resolve_one = jax.jit(resolve)
    for _ in range(200):
        cell = rng.permutation(2 * n)[:n]
        target = np.where(
            rng.random(n) < 0.2,
            cell,
            rng.integers(0, 2 * n, n),
        )
        order = rng.permutation(n)
        moves = resolve_one(
            jnp.array(cell),
            jnp.array(target),
            jnp.array(order),
        )
        assert set(np.flatnonzero(moves)) == search(cell, target, order)


def search(cell, target, order):
    """Return the robots that move, by walking along chains."""
    at = {int(c): i for i, c in enumerate(cell)}
    ahead = [at.get(int(t)) for t in target]
    behind = {t: [i for i in range(len(cell)) if target[i] == t] for t in range(99)}

    def chain(i):
        return 1 + max(
            (chain(j) for j in behind[int(cell[i])]),
            default=0,
        )

    def lead(place):
        rivals = behind[place]
        if not rivals:
            return set()
        first = max(
            rivals,
            key=lambda i: (chain(i), -order[i]),
        )
        return {first} | lead(int(cell[first]))

    moving = set()
    for i in range(len(cell)):
        cycle, j = [i], ahead[i]
        while j is not None and j not in cycle:
            cycle.append(j)
            j = ahead[j]
        if j == i and len(cycle) > 2:
            moving |= set(cycle)
        if j is None:
            moving |= lead(int(target[cycle[-1]]))
    return moving
