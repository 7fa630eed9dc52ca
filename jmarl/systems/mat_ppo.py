"""MAT: Multi-Agent Transformer with PPO (Wen et al. 2022, arXiv:2205.14953).

    rep, V = encoder(o^1, ..., o^n);   pi^i = decoder(rep, a^1, ..., a^{i-1})
    L = - mean_i min(rho^i A, clip(rho^i, 1-eps, 1+eps) A) - c_H mean_i H^i + c_V mean_i l(V^i, G)

The encoder has n blocks of unmasked attention over agents. A block of the decoder has causal
attention over the actions so far, then attention with ``rep`` as its query input.

The loss is that of eqs. 4 and 5. With ``advantage: joint``, A is one advantage for all agents, from
the mean of their values. With ``advantage: per_agent``, each agent has its own advantage.

Differs from the paper:

* Acting decodes one agent at a time with a key-value cache, instead of running the whole decoder
  for every agent.
* With shuffled agents, learning uses the order of acting (``systems/kits/sequence_ppo.py``).
* Time limits bootstrap from the final observation.
* Keys have no bias.
"""

from __future__ import annotations


# This block is above the imports, so that --help does not import JAX.
if __name__ == "__main__":
    from jmarl.cli.launch import main

    main("mat_ppo")

from functools import partial

from jmarl.config import RunConfig
from jmarl.networks.sequence.attention_mixer import Attention
from jmarl.networks.sequence.blocks import MLP, DecoderBlock, EncoderBlock
from jmarl.networks.sequence.policy import SequencePolicy
from jmarl.system import System
from jmarl.systems.kits.sequence_ppo import HeadsNetwork as Network
from jmarl.systems.kits.sequence_ppo import SequenceConfig as Config
from jmarl.systems.kits.sequence_ppo import encoder_decoder_policy, sequence_system
from jmarl.types import Spec


__all__ = ["Config", "Network", "make", "policy"]


def policy(spec: Spec, network: Network) -> SequencePolicy:
    """Build the transformer as a sequence policy."""
    width = network.embed_dim
    attention = partial(Attention, width, network.n_head, n_agents=spec.n_agents)
    unmasked = partial(attention, causal=False)
    causal = partial(attention, causal=True)
    mlp = partial(MLP, width)
    encoder_block = partial(EncoderBlock, unmasked, mlp)
    decoder_block = partial(DecoderBlock, causal, causal, mlp)
    return encoder_decoder_policy(spec, network, encoder_block, decoder_block)


def make(spec: Spec, config: RunConfig) -> System:
    """Build MAT for an environment."""
    return sequence_system(spec, policy(spec, config.network), config)
