"""PPO for sequence policies: what MAT, MAM and Sable share on top of the kit.

    pi(a | o) = prod_i pi(a_{order_i} | rep(o), a_{order_0}, ..., a_{order_{i-1}})

Agents act one after the other; PPO's ratio and clip are taken for each agent's own factor (Wen et
al. 2022, eq. 5). With ``shuffle_agents`` every environment step draws its own order *when acting*,
stores it, and learns in it, so that the ratios of the first minibatch are 1. Differs from the
published code, which permutes agents between acting and learning and divides by log-probabilities
of another order. The encoder, and with it every value, keeps the agents' own order. Bootstrap
values come from the encoder alone.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import jax
from jaxtyping import Array, Float, Int

from jmarl.config import ConfigError, RunConfig, check, check_range
from jmarl.networks.sequence.policy import (
    ActionCodec,
    SequenceCarry,
    SequencePolicy,
    action_codec,
    arrange,
    decode,
    restore,
    sample_order,
    teacher_forced,
)
from jmarl.system import ActFn, System
from jmarl.systems.kits.ppo import (
    Evaluate,
    PPOConfig,
    PPOExtras,
    Value,
    ppo_optimizer,
    ppo_system,
)
from jmarl.types import Key, Params, Spec, TimeStep, Transition


@dataclasses.dataclass(frozen=True)
class SequenceConfig(PPOConfig):
    """PPO, and the order of agents. Defaults are in ``configs/system``."""

    shuffle_agents: bool


def check_sizes(network: Any, *keys: str) -> None:
    """Raise ``ConfigError`` for a size of a network that is below 1."""
    for key in keys:
        check_range(f"network.{key}", getattr(network, key), low=1)


def check_heads(n_head: int, embed_dim: int) -> None:
    """Raise ``ConfigError`` unless the heads share the width evenly."""
    check(
        embed_dim % n_head == 0,
        "network.n_head",
        n_head,
        f"must divide network.embed_dim={embed_dim}",
    )


class SequenceExtras(PPOExtras):
    """``order[i]`` is the agent that acted at position i; None where agents keep their own order."""

    order: Int[Array, "*batch N"] | None = None


class SequenceFunctions(NamedTuple):
    """What the PPO kit asks of a system."""

    act: ActFn
    evaluate: Evaluate
    value: Value


def sequence_functions(
    policy: SequencePolicy, codec: ActionCodec, *, shuffle_agents: bool
) -> SequenceFunctions:
    """Acting and learning with one and the same policy."""

    def act(
        params: Params,
        carry: SequenceCarry,
        timestep: TimeStep,
        key: Key,
        explore: Float[Array, ""],
    ) -> tuple[Array, SequenceCarry, SequenceExtras]:
        noise_key, order_key = jax.random.split(key)
        enc, rep, value = encode_row(params, carry, timestep)
        order = (
            sample_order(order_key, value.shape, explore) if shuffle_agents else None
        )
        avail = arrange(timestep.obs.avail, order)
        noise = codec.noise(noise_key, value.shape) * (explore > 0)
        state = policy.decode_start(params, carry.dec, timestep.first)
        sample, out, state = decode(
            policy, codec, params, state, arrange(rep, order), avail, noise
        )
        dist = codec.distribution(out, avail)
        logp, stored = (restore(x, order) for x in (dist.log_prob(sample), sample))
        extras = SequenceExtras(logp=logp, value=value, sample=stored, order=order)
        return (
            dist.action(stored),
            SequenceCarry(enc, policy.decode_end(params, state)),
            extras,
        )

    def evaluate(
        params: Params, carry: SequenceCarry, steps: Transition
    ) -> tuple[Array, Array, Array]:
        order = steps.extras.order
        _, rep, value = policy.encode(params, carry.enc, steps.obs, steps.first)
        sample = arrange(steps.extras.sample, order)
        tokens = teacher_forced(codec, sample)
        out = policy.decode_parallel(
            params, carry.dec, tokens, arrange(rep, order), steps.first
        )
        dist = codec.distribution(out, arrange(steps.obs.avail, order))
        return (
            restore(dist.log_prob(sample), order),
            restore(dist.entropy(), order),
            value,
        )

    def encode_row(
        params: Params, carry: SequenceCarry, timestep: TimeStep
    ) -> tuple[Any, Array, Array]:
        row = jax.tree.map(lambda x: x[None], (timestep.obs, timestep.first))
        enc, rep, value = policy.encode(params, carry.enc, *row)
        return enc, rep[0], value[0]

    return SequenceFunctions(
        act,
        evaluate,
        lambda params, carry, timestep: encode_row(params, carry, timestep)[2],
    )


def sequence_system(spec: Spec, policy: SequencePolicy, config: RunConfig) -> System:
    """Assemble a PPO system from a sequence policy.

    Raises ``ConfigError`` if agents are shuffled and the network cannot tell them apart, and for a world whose
    episodes may lack agents: the others would read rows and tokens of those.
    """
    cfg = config.system
    if not spec.fixed_team:
        rule = "its teams have several sizes, and this system reads all agents in a row; choose a world of one size"
        raise ConfigError(f"env={config.env['name']}: {rule}")
    tells_apart = config.network.agent_id or not cfg.shuffle_agents
    check(
        tells_apart,
        "system.shuffle_agents",
        cfg.shuffle_agents,
        "needs network.agent_id=true",
    )
    functions = sequence_functions(
        policy, action_codec(spec), shuffle_agents=cfg.shuffle_agents
    )
    return ppo_system(
        policy.init,
        policy.carry,
        *functions,
        ppo_optimizer(cfg, config.num_updates),
        cfg,
    )
