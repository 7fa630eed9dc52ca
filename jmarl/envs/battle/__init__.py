"""Battle simulator of ``smax_*``: scenarios, physics, enemy policy, observations and rendering.

It may import neither learning code nor JaxMARL, and its module ``rules`` may not import JAX.
"""
