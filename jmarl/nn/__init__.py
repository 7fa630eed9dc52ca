"""General neural-network layers: linear maps, an MLP, norms, initializers and attention.

Modules here must not depend on reinforcement learning: from jmarl they may import only types, from
``jmarl.types``.
"""
