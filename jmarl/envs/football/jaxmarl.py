"""Football as an environment of JaxMARL, for users of its wrappers and baselines."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxmarl.environments.multi_agent_env import MultiAgentEnv
from jaxmarl.environments.spaces import Box, Discrete
from jaxtyping import Array, Bool, Float, Int

from jmarl.envs.football.core.setup import Setup, first_world
from jmarl.envs.football.core.world import World
from jmarl.envs.football.football_env import (
    draw_start,
    draw_step,
    ends,
    make_setup,
    step_world,
)
from jmarl.envs.football.scenarios.football_scenario import Scenario
from jmarl.envs.football.views.entity_view import observe, spec
from jmarl.types import EntityObs, Key


ByAgent = dict[str, Array]
"""Values by the name of the agent."""


class Football(MultiAgentEnv):
    """A single football environment with the agents ``left_0``, ``left_1``, ...

    Agent i is player i + 1 of the left team. The methods can be used under ``jax.vmap``, and
    ``step`` resets as soon as an episode ends. Environment i of ``Env.step(key, ...)`` has the
    transitions of ``step`` with the key ``jax.random.split(key, B)[i]``.
    """

    def __init__(
        self, scenario: str | Scenario = "3_vs_1_with_keeper", **options: Any
    ) -> None:
        """Build an environment.

        Args:
            scenario: Scenario, or its name without ``football_``.
            **options: Fields of ``FootballConfig``.

        Raises:
            ConfigError: If the scenario or an option is unknown, or a value is wrong.
        """
        setup = make_setup(scenario, options)
        super().__init__(setup.scenario.n_agents)
        self.setup: Setup = setup
        self.spec = spec(setup)
        self.agents = [f"left_{i}" for i in range(self.num_agents)]
        obs, world = jax.eval_shape(
            self._reset,
            jax.random.key(0),
        )
        space = Box(
            -jnp.inf,
            jnp.inf,
            obs[self.agents[0]].shape,
        )
        self.observation_spaces = dict.fromkeys(self.agents, space)
        actions = Discrete(self.spec.n_actions)
        self.action_spaces = dict.fromkeys(self.agents, actions)
        self.state_size: int = jax.eval_shape(self.get_world_state, world).size

    @partial(jax.jit, static_argnums=0)
    def reset(self, key: Key) -> tuple[ByAgent, World]:
        """Start an episode; return the observations and the state."""
        return self._reset(key)

    def _reset(self, key: Key) -> tuple[ByAgent, World]:
        start = draw_start(self.setup, key)
        world = first_world(self.setup, start.noise, start.right_first)
        return self.get_obs(world), world

    @partial(jax.jit, static_argnums=0)
    def step_env(
        self, key: Key, state: World, actions: dict[str, Int[Array, ""]]
    ) -> tuple[ByAgent, World, ByAgent, ByAgent, ByAgent]:
        """Advance by one step of 0.1 s, without a reset.

        Args:
            key: Random key.
            state: State of football.
            actions: Action of each agent; -1 leaves an agent to the scripted play.

        Returns:
            Observations, state, rewards and dones of the agents, and information: ``won``,
            ``conceded`` and ``truncated`` (by the time limit), bool ``[num_agents]``, and
            ``end_reason``, an index of ``core.world.ENDS``, ``[num_agents]``.
        """
        action = jnp.stack([actions[agent] for agent in self.agents])
        draws = draw_step(self.setup, key)
        state, reward = step_world(self.setup, state, action, draws)
        terminated, truncated = ends(state)
        done = terminated | truncated
        dones = dict.fromkeys([*self.agents, "__all__"], done)
        won, conceded = state.score > 0
        info = {
            "won": won & done,
            "conceded": conceded & done,
            "truncated": truncated,
            "end_reason": state.end.astype(jnp.int32),
        }
        # JaxMARL's baselines expect one value for each agent.
        info = jax.tree.map(
            partial(jnp.full, self.num_agents),
            info,
        )
        rewards = self._by_agent(reward)
        return self.get_obs(state), state, rewards, dones, info

    def get_obs(
        self,
        state: World,
    ) -> dict[str, Float[Array, "F"]]:
        """Return the observations as flat vectors: own features, then the rows of entities."""
        obs = observe(self.setup, state)
        shape = self.num_agents, -1
        rows = [x.reshape(shape) for x in obs.rows]
        vectors = jnp.concatenate(
            [obs.own, *rows],
            axis=-1,
        )
        return self._by_agent(vectors)

    @partial(jax.jit, static_argnums=0)
    def get_avail_actions(
        self,
        state: World,
    ) -> dict[str, Bool[Array, "A"]]:
        """Return the mask of the available actions of each agent."""
        return self._by_agent(self.get_entities(state).avail)

    def get_entities(self, state: World) -> EntityObs:
        """Return the observations as entities, ``[N, ...]``, described by ``spec``."""
        return observe(self.setup, state)

    def get_world_state(self, state: World) -> Float[Array, "F"]:
        """Return the central state as a flat vector, ``[state_size]``."""
        central = observe(self.setup, state).state
        rows = [rows.reshape(-1) for rows in central.rows]
        return jnp.concatenate([central.features, *rows])

    def _by_agent(self, values: Array) -> ByAgent:
        return dict(zip(self.agents, values, strict=True))

    @property
    def agent_classes(self) -> dict[str, list[str]]:
        """Return the classes of the agents: all are of one class."""
        return {"left": self.agents}
