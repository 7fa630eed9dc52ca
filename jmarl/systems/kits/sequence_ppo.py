"""Kit for PPO with sequence policies, which MAT, MAM and Sable share.

    pi(a | o) = prod_i pi(a_{order_i} | rep(o), a_{order_0}, ..., a_{order_{i-1}})
    L = - mean_i min(rho^i A, clip(rho^i, 1-eps, 1+eps) A) - c_H mean_i H^i + c_V mean_i l(V^i, G)

Agents act in sequence. Ratio and clip apply to each agent's own factor (Wen et al. 2022,
arXiv:2205.14953, eq. 5). All other parts are those of ``systems/kits/ppo.py``.

With ``shuffle_agents``, acting draws an order of agents at every time step and stores it. Learning
uses the stored order, so the ratios of the first minibatch are 1. The encoder and the values use
the agents' own order. Bootstrap values come from the encoder only.

Differs from the published code, which permutes agents between acting and learning. That code
divides by log-probabilities of another order.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
from jaxtyping import Array, Int

from jmarl.config import ConfigError, RunConfig, check, check_range
from jmarl.config.schema import MAX_BLOCKS, MAX_SIZE
from jmarl.networks.rows import add_time_axis, drop_time_axis
from jmarl.networks.sequence.blocks import Factory
from jmarl.networks.sequence.network import Decoder, Encoder, sequence_policy
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
from jmarl.nn.norm import LayerNorm
from jmarl.system import System
from jmarl.systems.kits.ppo import (
    Evaluation,
    PPOConfig,
    PPOExtras,
    PPOFunctions,
    ppo_optimizer,
    ppo_system,
)
from jmarl.types import Spec


@dataclasses.dataclass(frozen=True)
class SequenceConfig(PPOConfig):
    """Configuration of the PPO kit, and the order of agents."""

    shuffle_agents: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class SequenceNetwork:
    """Base class of the configuration of encoder and decoder."""

    embed_dim: int
    n_block: int
    agent_id: bool

    def __post_init__(self) -> None:
        check_sizes(self, "embed_dim", "n_block")


@dataclasses.dataclass(frozen=True, kw_only=True)
class HeadsNetwork(SequenceNetwork):
    """Configuration of an encoder and a decoder with several heads."""

    n_head: int

    def __post_init__(self) -> None:
        super().__post_init__()
        check_sizes(self, "n_head")
        fits = self.embed_dim % self.n_head == 0
        rule = f"must divide network.embed_dim={self.embed_dim}"
        check(fits, "network.n_head", self.n_head, rule)


def check_sizes(network: Any, *keys: str) -> None:
    """Check that sizes of a network are at least 1, and at most 128 for ``n_block``.

    Args:
        network: Configuration of the network.
        *keys: Names of its sizes.

    Raises:
        ConfigError: If a size is out of range.
    """
    for key in keys:
        most = MAX_BLOCKS if key == "n_block" else MAX_SIZE
        check_range(f"network.{key}", getattr(network, key), 1, most)


def encoder_decoder_policy(
    spec: Spec,
    network: SequenceNetwork,
    encoder_block: Factory,
    decoder_block: Factory,
    norm: Factory = LayerNorm,
) -> SequencePolicy:
    """Build the sequence policy of an encoder and a decoder.

    Args:
        spec: Description of the environment.
        network: Configuration of both.
        encoder_block: Factory of ``EncoderBlock``.
        decoder_block: Factory of ``DecoderBlock``.
        norm: Factory of the normalization layers outside of the blocks.

    Returns:
        Sequence policy on flat observations.
    """
    width, depth = network.embed_dim, network.n_block
    encoder = Encoder(width, depth, encoder_block, norm)
    decoder = Decoder(width, depth, spec.n_actions, spec.discrete, decoder_block, norm)
    return sequence_policy(spec, encoder, decoder, agent_id=network.agent_id)


class SequenceExtras(PPOExtras):
    """Outputs of ``act`` that are stored with the action."""

    order: Int[Array, "*batch N"] | None = None
    """``order[i]`` is the agent that acted at position i; None for the agents' own order."""


def sequence_functions(
    policy: SequencePolicy, codec: ActionCodec, *, shuffle_agents: bool
) -> PPOFunctions:
    """Build acting and learning from one policy.

    Args:
        policy: Sequence policy.
        codec: Conversion between actions, distributions and decoder tokens.
        shuffle_agents: True to draw an order of agents for every environment step.

    Returns:
        Functions of ``ppo_system``.
    """

    def encode_row(params, carry, timestep):
        row = add_time_axis((timestep.obs, timestep.first))
        enc, rep, value = policy.encode(params, carry.enc, *row)
        return enc, drop_time_axis(rep), drop_time_axis(value)

    def draw_order(key, shape, explore):
        return sample_order(key, shape, explore) if shuffle_agents else None

    def act(params, carry, timestep, key, explore):
        noise_key, order_key = jax.random.split(key)
        enc, rep, value = encode_row(params, carry, timestep)  # [B, N, E], [B, N]
        order = draw_order(order_key, value.shape, explore)
        rep = arrange(rep, order)
        avail = arrange(timestep.obs.avail, order)
        noise = codec.noise(noise_key, value.shape) * (explore > 0)
        before = carry.dec, timestep.first
        sample, out, dec = decode(policy, codec, params, before, rep, avail, noise)
        dist = codec.distribution(out, avail)
        logp = restore(dist.log_prob(sample), order)
        sample = restore(sample, order)
        extras = SequenceExtras(logp=logp, value=value, sample=sample, order=order)
        return dist.action(sample), SequenceCarry(enc, dec), extras

    def evaluate(params, carry, steps):
        order = steps.extras.order
        _, rep, value = policy.encode(params, carry.enc, steps.obs, steps.first)
        rep = arrange(rep, order)  # [T, B, N, E]
        avail = arrange(steps.obs.avail, order)
        sample = arrange(steps.extras.sample, order)
        tokens = teacher_forced(codec, sample)
        out = policy.decode_parallel(params, carry.dec, tokens, rep, steps.first)
        dist = codec.distribution(out, avail)
        logp = restore(dist.log_prob(sample), order)
        entropy = restore(dist.entropy(), order)
        return Evaluation(logp, entropy, value)

    def value(params, carry, timestep):
        return encode_row(params, carry, timestep)[2]

    return PPOFunctions(policy.init, policy.carry, act, evaluate, value)


def sequence_system(spec: Spec, policy: SequencePolicy, config: RunConfig) -> System:
    """Build a PPO system from a sequence policy.

    Args:
        spec: Description of the environment.
        policy: Sequence policy.
        config: Configuration of the run; ``config.system`` is a ``SequenceConfig``.

    Returns:
        System whose learner is a ``PPOLearner``.

    Raises:
        ConfigError: If agents may be absent from episodes, because other agents would read their
            observations and tokens. Also if agents are shuffled without ``network.agent_id``.
    """
    cfg = config.system
    if not spec.fixed_team:
        raise ConfigError(
            f"env={config.env['name']}: its teams have several sizes, but this system reads "
            "all agents as one sequence; choose an environment with one team size"
        )
    check(
        config.network.agent_id or not cfg.shuffle_agents,
        "system.shuffle_agents",
        cfg.shuffle_agents,
        "needs network.agent_id=true",
    )
    functions = sequence_functions(
        policy, action_codec(spec), shuffle_agents=cfg.shuffle_agents
    )
    tx = ppo_optimizer(cfg, config.num_updates)
    return ppo_system(functions, tx, cfg)
