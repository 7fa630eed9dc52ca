"""Rendezvous: agents on a line see their own place and the mean, and must meet."""

import jax
import jax.numpy as jnp

from jmarl.envs.batched import SingleEnv, Step, batched, flat_obs, flat_spec
from jmarl.envs.scene import Disc, Scene


def rendezvous(n_agents: int = 3, size: int = 5):
    """Agents on a line must meet."""
    spec = flat_spec(
        n_agents, own_width=2, n_actions=3, episode_limit=20, outcomes=("won",)
    )

    def observe(place):
        middle = jnp.full(n_agents, place.mean())
        own = jnp.stack([place, middle], axis=-1) / size
        avail = jnp.stack([place > 0, place >= 0, place < size - 1], axis=-1)
        return flat_obs(spec, own, avail=avail)

    def reset(key):
        place = jax.random.randint(key, (n_agents,), 0, size)
        return place, observe(place)

    def step(key, place, action):
        place = jnp.clip(place + action - 1, 0, size - 1)
        met = jnp.all(place == place[0])
        reward = jnp.where(met, 1.0, -0.1)
        return place, Step(observe(place), reward, terminated=met, info={"won": met})

    def scene(place):
        discs = tuple(
            Disc(x + 0.5, agent + 0.5, 0.4, "tab:blue", str(agent))
            for agent, x in enumerate(place.tolist())
        )
        return Scene(size, n_agents, discs, lines=(), caption="rendezvous")

    return batched(SingleEnv("rendezvous", spec, reset, step, scene))
