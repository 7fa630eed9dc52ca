"""Sable: retention over agents and time with PPO (Mahjoub et al. 2024, arXiv:2410.01706).

    S_t = kappa S_{t-1} + sum_i k_{t,i} v_{t,i}^T;   y_{t,i} = q_{t,i} S_t     over environment steps t and agents i
    encoder: k, v, q from o;   decoder: k, v from the actions so far, q from rep^i

MAT with its attentions replaced by retention, whose memory has one size however many agents and steps
it has seen: the loss is MAT's (``systems/mat_ppo.py``), acting is recurrent and learning is by chunks of steps.
``sable`` is its feed-forward form, which forgets after every step; ``system=rec_sable`` carries the memory through
the episode, and over the ends of rollouts, where learning begins from the memory that acted.
Differs from the paper: the encoder alone is told the step number; time limits bootstrap from the final observation; a
shuffled order of agents is the one that acted (``systems/kits/sequence_ppo.py``); see also ``networks/sequence/retention.py``.
"""

from __future__ import annotations


if __name__ == "__main__":
    from jmarl.cli.launch import main

    main("sable")

import dataclasses
from functools import partial

from jmarl.config import RunConfig, check_range
from jmarl.networks.sequence.blocks import DecoderBlock, EncoderBlock
from jmarl.networks.sequence.network import Decoder, Encoder, sequence_policy
from jmarl.networks.sequence.policy import SequencePolicy
from jmarl.networks.sequence.retention import Retention, SwiGLU, TimedRetention
from jmarl.nn.norm import RMSNorm
from jmarl.system import System
from jmarl.systems.kits.sequence_ppo import SequenceConfig as Config
from jmarl.systems.kits.sequence_ppo import check_heads, check_sizes, sequence_system
from jmarl.types import Spec


__all__ = ["Config", "Network", "make", "policy"]


@dataclasses.dataclass(frozen=True)
class Network:
    """Sizes of encoder and decoder, and whether they remember."""

    embed_dim: int
    n_block: int
    n_head: int
    decay_scale: float
    memory: bool
    agent_id: bool

    def __post_init__(self) -> None:
        """Check the sizes."""
        check_sizes(self, "embed_dim", "n_block", "n_head")
        check_heads(self.n_head, self.embed_dim)
        check_range("network.decay_scale", self.decay_scale, 0, 1)


def policy(spec: Spec, network: Network) -> SequencePolicy:
    """The retentive network as a sequence policy."""
    width, depth = network.embed_dim, network.n_block
    sizes = {
        "embed_dim": width,
        "n_head": network.n_head,
        "decay_scale": network.decay_scale,
        "memory": network.memory,
    }
    over_all, over_earlier = (
        partial(TimedRetention, **sizes),
        partial(Retention, causal=True, **sizes),
    )
    mlp = partial(SwiGLU, width)
    encoder = Encoder(
        width, depth, partial(EncoderBlock, over_all, mlp, RMSNorm), RMSNorm
    )
    block = partial(DecoderBlock, over_earlier, over_earlier, mlp, RMSNorm)
    decoder = Decoder(width, depth, spec.n_actions, spec.discrete, block, RMSNorm)
    return sequence_policy(spec, encoder, decoder, agent_id=network.agent_id)


def make(spec: Spec, config: RunConfig) -> System:
    """Sable for a world."""
    return sequence_system(spec, policy(spec, config.network), config)
