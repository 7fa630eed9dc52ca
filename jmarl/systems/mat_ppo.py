"""MAT: Multi-Agent Transformer with PPO (Wen et al. 2022, arXiv:2205.14953).

    rep, V = encoder(o^1, ..., o^n);   pi^i = decoder(rep, a^1, ..., a^{i-1})
    L = - mean_i min(rho^i A, clip(rho^i, 1 - eps, 1 + eps) A) - c_H mean_i H^i + c_V mean_i l(V^i, G)

Encoder: n blocks of unmasked attention over agents. Decoder: causal attention over the actions so
far, then attention that asks with ``rep``. Loss: eqs. 4 and 5; A is one advantage for all agents
(``advantage: joint``), from the mean of the agents' values, or one for each agent.
Differs from the paper: acting decodes with a key-value cache, one agent at a time, instead of the
whole decoder for every agent; a shuffled order of agents is the one that acted
(``systems/kits/sequence_ppo.py``); time limits bootstrap from the final observation; keys have no bias.
"""

from __future__ import annotations


if __name__ == "__main__":
    from jmarl.cli.launch import main

    main("mat_ppo")

import dataclasses
from functools import partial

from jmarl.config import RunConfig
from jmarl.networks.sequence.attention_mixer import Attention
from jmarl.networks.sequence.blocks import MLP, DecoderBlock, EncoderBlock
from jmarl.networks.sequence.network import Decoder, Encoder, sequence_policy
from jmarl.networks.sequence.policy import SequencePolicy
from jmarl.system import System
from jmarl.systems.kits.sequence_ppo import SequenceConfig as Config
from jmarl.systems.kits.sequence_ppo import check_heads, check_sizes, sequence_system
from jmarl.types import Spec


__all__ = ["Config", "Network", "make", "policy"]


@dataclasses.dataclass(frozen=True)
class Network:
    """Sizes of encoder and decoder."""

    embed_dim: int
    n_block: int
    n_head: int
    agent_id: bool

    def __post_init__(self) -> None:
        """Check the sizes."""
        check_sizes(self, "embed_dim", "n_block", "n_head")
        check_heads(self.n_head, self.embed_dim)


def policy(spec: Spec, network: Network) -> SequencePolicy:
    """The transformer as a sequence policy."""
    width, depth, heads = network.embed_dim, network.n_block, network.n_head
    attend, mlp = (
        partial(Attention, width, heads, n_agents=spec.n_agents),
        partial(MLP, width),
    )
    sees_all, sees_earlier = partial(attend, causal=False), partial(attend, causal=True)
    encoder = Encoder(width, depth, partial(EncoderBlock, sees_all, mlp))
    block = partial(DecoderBlock, sees_earlier, sees_earlier, mlp)
    decoder = Decoder(width, depth, spec.n_actions, spec.discrete, block)
    return sequence_policy(spec, encoder, decoder, agent_id=network.agent_id)


def make(spec: Spec, config: RunConfig) -> System:
    """MAT for a world."""
    return sequence_system(spec, policy(spec, config.network), config)
