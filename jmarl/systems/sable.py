"""Sable: retention over agents and time with PPO (Mahjoub et al. 2024, arXiv:2410.01706).

    S_t = kappa S_{t-1} + sum_i k_{t,i} v_{t,i}^T;   y_{t,i} = q_{t,i} S_t
    encoder: k, v, q from o
    decoder: k, v from the actions so far, q from rep^i

for time steps t and agents i. Sable is MAT (``systems/mat_ppo.py``) with retention instead of
attention. The loss is that of MAT. The size of retention's memory does not depend on the number of
agents or time steps. Acting is recurrent, and learning processes chunks of time steps.

``sable`` is the feed-forward form. Its memory is reset after every time step. The system
``rec_sable`` carries the memory through the episode and across rollouts. Learning then starts from
the memory that was used in acting.

Differs from the paper:

* Only the encoder reads the number of the time step.
* Time limits bootstrap from the final observation.
* With shuffled agents, learning uses the order of acting (``systems/kits/sequence_ppo.py``).
* See also ``networks/sequence/retention.py``.
"""

from __future__ import annotations


# This block is above the imports, so that --help does not import JAX.
if __name__ == "__main__":
    from jmarl.cli.launch import main

    main("sable")

import dataclasses
from functools import partial

from jmarl.config import RunConfig, check_range
from jmarl.networks.sequence.blocks import DecoderBlock, EncoderBlock
from jmarl.networks.sequence.policy import SequencePolicy
from jmarl.networks.sequence.retention import Retention, SwiGLU, TimedRetention
from jmarl.nn.norm import RMSNorm
from jmarl.system import System
from jmarl.systems.kits.sequence_ppo import (
    HeadsNetwork,
    encoder_decoder_policy,
    sequence_system,
)
from jmarl.systems.kits.sequence_ppo import SequenceConfig as Config
from jmarl.types import Spec


__all__ = ["Config", "Network", "make", "policy"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Network(HeadsNetwork):
    """Configuration of encoder and decoder with retention."""

    decay_scale: float
    memory: bool

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range("network.decay_scale", self.decay_scale, 0, 1)


def policy(spec: Spec, network: Network) -> SequencePolicy:
    """Build the retentive network as a sequence policy."""
    width = network.embed_dim
    sizes = {
        "embed_dim": width,
        "n_head": network.n_head,
        "decay_scale": network.decay_scale,
        "memory": network.memory,
    }
    unmasked = partial(TimedRetention, **sizes)
    causal = partial(Retention, causal=True, **sizes)
    mlp = partial(SwiGLU, width)
    encoder_block = partial(EncoderBlock, unmasked, mlp, RMSNorm)
    decoder_block = partial(DecoderBlock, causal, causal, mlp, RMSNorm)
    return encoder_decoder_policy(spec, network, encoder_block, decoder_block, RMSNorm)


def make(spec: Spec, config: RunConfig) -> System:
    """Build Sable for an environment."""
    return sequence_system(spec, policy(spec, config.network), config)
