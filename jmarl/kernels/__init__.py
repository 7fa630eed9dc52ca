"""GPU kernels of functions that XLA would split into many.

Modules here must not depend on reinforcement learning: from jmarl they may import only
``jmarl.platforms``.
"""
