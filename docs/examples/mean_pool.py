"""IPPO whose policy averages the entities that an agent observes."""

import flax.linen as nn
import jax.numpy as jnp

from jmarl.config import RunConfig
from jmarl.networks.actor_critic import Critic, Policy
from jmarl.networks.actor_critic import NetworkConfig as Network
from jmarl.system import System
from jmarl.systems.kits.ppo import PPOConfig as Config
from jmarl.systems.kits.ppo import actor_critic_system
from jmarl.types import Spec


__all__ = ["Config", "Network", "make"]


class MeanPool(nn.Module):
    """Add the own features to the mean of each group, and return one logit per action."""

    spec: Spec
    width: int

    @nn.nowrap
    def initial(self, batch: int) -> tuple[()]:
        return ()

    @nn.compact
    def __call__(self, carry, obs, first):
        x = nn.Dense(self.width, name="own")(obs.own)
        for group, rows, mask in zip(self.spec.groups, obs.rows, obs.mask, strict=True):
            embedded = nn.relu(nn.Dense(self.width, name=group.name)(rows))
            total = embedded.sum(-2, where=mask[..., None])
            x += total / jnp.maximum(mask.sum(-1), 1)[..., None]
        x = nn.relu(x)
        return carry, nn.Dense(self.spec.n_actions, name="out")(x), x


def make(spec: Spec, config: RunConfig) -> System:
    policy = Policy(MeanPool(spec, width=64), spec.discrete)
    critic = Critic(spec, config.network, reads="obs")
    return actor_critic_system(policy, critic, spec, config.system, config.num_updates)
