"""MAM: Multi-Agent Mamba with PPO (Daniel et al. 2024, arXiv:2410.19382).

    h_i = exp(dt_i A) h_{i-1} + dt_i B_i x_i;   y_i = C_i h_i + D x_i     over agents i
    encoder: C, B, dt from o, in both directions
    decoder: dt, B from the actions so far, C from rep^i

MAM is MAT (``systems/mat_ppo.py``) with selective state spaces instead of attention. The loss is
that of MAT. Acting takes the same time for every additional agent.

Differs from the paper:

* ``bi_mode=sum`` adds two passes over the same input. The authors' form (``bi_mode=mam``)
  multiplies the first pass with a second one over its output.
* With shuffled agents, learning uses the order of acting (``systems/kits/sequence_ppo.py``).
* A continuous decoder reads ``tanh`` of the sample, both in acting and in learning.
* The convolution has at most as many taps as there are agents.
* ``memory`` (the system ``rec_mam``) is an addition: a causal selective state space over time for
  each agent, before the blocks over agents. Its state and convolution are carried like those of a
  GRU, and reset at the start of an episode.

Two ablations replace CrossMamba. ``cross=attention`` uses causal attention, inside the residual and
norm that CrossMamba has. ``cross=none`` adds the action stream to ``rep`` unchanged.

``bi_mode=sum`` is the default because of what it computes: each direction reads the agents
themselves. Which of the two forms learns better is open.
"""

from __future__ import annotations


# This block is above the imports, so that --help does not import JAX.
if __name__ == "__main__":
    from jmarl.cli.launch import main

    main("mam_ppo")

import dataclasses
from functools import partial
from typing import Literal

from jmarl.config import RunConfig, check_range
from jmarl.networks.memory import SSM, NoMemory
from jmarl.networks.sequence.attention_mixer import Attention
from jmarl.networks.sequence.blocks import (
    MLP,
    DecoderBlock,
    EncoderBlock,
    Factory,
    Identity,
    Residual,
)
from jmarl.networks.sequence.mamba_mixer import (
    BiMambaMixer,
    CausalMambaMixer,
    CrossMambaMixer,
)
from jmarl.networks.sequence.policy import SequencePolicy
from jmarl.ssm import MambaConfig
from jmarl.system import System
from jmarl.systems.kits.sequence_ppo import SequenceConfig as Config
from jmarl.systems.kits.sequence_ppo import (
    SequenceNetwork,
    check_sizes,
    encoder_decoder_policy,
    sequence_system,
)
from jmarl.types import Spec


__all__ = ["Config", "Network", "make", "policy"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Network(SequenceNetwork):
    """Configuration of encoder and decoder with selective state spaces."""

    d_state: int
    d_conv: int
    expand: int
    delta_rank: int | None
    bi_mode: Literal["sum", "mam"]
    cross: Literal["mamba", "attention", "none"]
    double_residual: bool
    memory: bool

    def __post_init__(self) -> None:
        super().__post_init__()
        check_sizes(self, "d_state", "d_conv", "expand")
        if self.delta_rank is not None:
            check_range("network.delta_rank", self.delta_rank, low=1)


def policy(spec: Spec, network: Network) -> SequencePolicy:
    """Build the state-space model as a sequence policy."""
    width = network.embed_dim
    time_ssm = MambaConfig(
        d_state=network.d_state,
        d_conv=network.d_conv,
        expand=network.expand,
        delta_rank=network.delta_rank,
    )
    d_conv = min(network.d_conv, spec.n_agents)
    agent_ssm = dataclasses.replace(time_ssm, d_conv=d_conv)
    both_ways = partial(BiMambaMixer, width, agent_ssm, network.bi_mode)
    causal = partial(CausalMambaMixer, width, agent_ssm)
    cross = cross_mixer(spec, network, agent_ssm)
    mlp = partial(MLP, width)
    memory = partial(SSM, width, time_ssm) if network.memory else NoMemory
    encoder_block = partial(
        EncoderBlock, both_ways, mlp, memory=memory, residual=network.double_residual
    )
    decoder_block = partial(
        DecoderBlock, causal, cross, mlp, residual=network.double_residual
    )
    return encoder_decoder_policy(spec, network, encoder_block, decoder_block)


def cross_mixer(spec: Spec, network: Network, ssm: MambaConfig) -> Factory:
    """Return the decoder's mixer of representations and actions: CrossMamba, or an ablation."""
    attention = partial(
        Attention, network.embed_dim, n_head=1, causal=True, n_agents=spec.n_agents
    )
    mixers: dict[str, Factory] = {
        "mamba": partial(CrossMambaMixer, network.embed_dim, ssm),
        "attention": partial(Residual, attention),
        "none": Identity,
    }
    return mixers[network.cross]


def make(spec: Spec, config: RunConfig) -> System:
    """Build MAM for an environment."""
    return sequence_system(spec, policy(spec, config.network), config)
