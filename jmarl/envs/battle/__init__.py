"""Battle simulator of ``smax_*``: scenarios, physics, enemy policy, observations and rendering.

It may import neither learning code nor JaxMARL. Its modules ``rules`` and ``scenario`` may not
import JAX.
"""
