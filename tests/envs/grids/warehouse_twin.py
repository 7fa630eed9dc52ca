"""The original warehouse beside ours: its state, its order of chains, and its draws as numbers."""

import gymnasium
import jax.numpy as jnp
import networkx as nx
import numpy as np
import rware  # noqa: F401  (registers the original's environments)
from rware.warehouse import Action, Direction

from jmarl.envs.grids.warehouse_rules import SHELF, State


AGENTS, SHELVES = 0, 1
"""Layers of the original's grid."""


def original(name, seed=0):
    """Return the original environment of one of our names, after a reset."""
    env = gymnasium.make(
        f"{name.replace('_', '-')}-v2", disable_env_checker=True
    ).unwrapped
    env.reset(seed=seed)
    return env


def cell(layout, x, y):
    return (y + 1) * layout.stride + x + 1


def to_state(layout, env, delivered=0):
    """Return our state of the original environment."""
    requested = {id(shelf) for shelf in env.request_queue}
    shelves = np.zeros(layout.n_cells, np.int32)
    for shelf in env.shelfs:
        shelves[cell(layout, shelf.x, shelf.y)] = SHELF + (id(shelf) in requested)
    robots = env.agents
    return State(
        cell=jnp.array(
            [cell(layout, a.x, a.y) for a in robots],
            jnp.int32,
        ),
        direction=jnp.array(
            [a.dir.value for a in robots],
            jnp.int32,
        ),
        carrying=jnp.array([a.carrying_shelf is not None for a in robots]),
        shelves=jnp.asarray(shelves),
        delivered=jnp.int32(delivered),
    )


def chain_order(env, actions):
    """Return the rank of each robot in the original's graph of the part that contains it."""
    graph = nx.DiGraph()
    starts = []
    for agent, action in zip(env.agents, actions, strict=True):
        agent.req_action = Action(int(action))
        start, target = (agent.x, agent.y), agent.req_location(env.grid_size)
        graph.add_edge(
            start,
            start if _is_blocked(env, agent, target) else target,
        )
        starts.append(start)
    parts = [graph.subgraph(c).copy() for c in nx.weakly_connected_components(graph)]
    rank = {place: i for part in parts for i, place in enumerate(part.nodes)}
    return np.array(
        [rank[start] for start in starts],
        np.int32,
    )


def _is_blocked(env, agent, target):
    x, y = target
    if not agent.carrying_shelf or (agent.x, agent.y) == target:
        return False
    other = env.grid[AGENTS, y, x]
    carried = other and env.agents[other - 1].carrying_shelf
    return bool(env.grid[SHELVES, y, x]) and not carried


class RecordedChoices:
    """Stand-in for the random numbers of the original that records its draws as numbers.

    A draw is (rank + 0.5) / n, where rank is that of the drawn shelf among the n candidates, in the
    order of cells.
    """

    def __init__(self, env):
        self.rng, self.draws = env.np_random, []

    def choice(self, candidates):
        drawn = self.rng.choice(candidates)
        places = sorted((shelf.y, shelf.x) for shelf in candidates)
        rank = places.index((drawn.y, drawn.x))
        self.draws.append((rank + 0.5) / len(places))
        return drawn


def step(env, actions):
    """Advance the original; return (observations, rewards, done, draws by goal)."""
    env._np_random = choices = RecordedChoices(env)
    observations, rewards, done, _, _ = env.step([int(a) for a in actions])
    env._np_random = choices.rng
    draws = np.zeros(len(env.goals), np.float32)
    is_goal = [_rewarded(env, rewards, x, y) for x, y in env.goals]
    draws[is_goal] = choices.draws
    return np.stack(observations), np.array(rewards, np.float32), done, draws


def _rewarded(env, rewards, x, y):
    agent = env.grid[AGENTS, y, x]
    return bool(agent) and rewards[agent - 1] > 0


def put(env, robots):
    """Place robots ``(x, y, direction)`` or ``(x, y, direction, carries)`` in the original.

    A robot that carries takes the shelf that the original has at its place, or else its first free
    shelf, which is moved there.
    """
    for agent, (x, y, direction, *carries) in zip(env.agents, robots, strict=True):
        agent.x, agent.y, agent.dir = x, y, Direction[direction.upper()]
        agent.carrying_shelf = None
        if carries:
            held = [a.carrying_shelf for a in env.agents]
            here = [s for s in env.shelfs if (s.x, s.y) == (x, y)]
            free = [s for s in env.shelfs if s not in held]
            agent.carrying_shelf = shelf = (here or free)[0]
            shelf.x, shelf.y = x, y
    env._recalc_grid()


def drive(env, rng, noise=0.2):
    """Return actions that bring requested shelves to goals and back, some of them random."""
    random = rng.integers(0, 5, len(env.agents))
    actions = [_drive_one(env, agent) for agent in env.agents]
    return np.where(
        rng.random(len(actions)) < noise,
        random,
        actions,
    )


def _drive_one(env, agent):
    standing = {(s.x, s.y) for s in env.shelfs}
    requested = {(s.x, s.y) for s in env.request_queue}
    load = agent.carrying_shelf
    if load is None:
        goals, walls = requested, set()
    elif load in env.request_queue:
        goals, walls = set(env.goals), standing
    else:
        homes = {(x, y) for y, x in np.argwhere(env.highways == 0).tolist()}
        goals, walls = homes - standing, standing
    here = agent.x, agent.y
    if here in goals or (
        load and here not in env.goals and not env.highways[here[::-1]]
    ):
        at_home = load is None or not env.highways[here[::-1]]
        if at_home and (load is None or load not in env.request_queue):
            return Action.TOGGLE_LOAD.value
    way = _first_way(env, here, goals, walls)
    if way is None:
        return Action.NOOP.value
    turns = ["UP", "RIGHT", "DOWN", "LEFT"]
    quarter = (turns.index(way) - turns.index(agent.dir.name)) % 4
    by_quarter = (
        Action.FORWARD,
        Action.RIGHT,
        Action.RIGHT,
        Action.LEFT,
    )
    return by_quarter[quarter].value


def _first_way(env, start, goals, walls):
    """Return the first direction of a shortest way to a goal, None if there is no way."""
    height, width = env.grid_size
    ways = {
        "UP": (0, -1),
        "DOWN": (0, 1),
        "LEFT": (-1, 0),
        "RIGHT": (1, 0),
    }
    seen, border = {start}, [(start, None)]
    while border:
        following = []
        for (x, y), first in border:
            for way, (dx, dy) in ways.items():
                place = x + dx, y + dy
                inside = 0 <= place[0] < width and 0 <= place[1] < height
                if not inside or place in seen or place in walls:
                    continue
                if place in goals:
                    return first or way
                seen.add(place)
                following.append((place, first or way))
        border = following
    return None
