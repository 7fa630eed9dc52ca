"""Simulator of battles: ``smax_*``, ``smac_*``, ``smacv2_*``, and those of scenario files.

``smax`` and ``smac`` contain the observations, rewards, starts and opponents of the two rule sets.
``physics`` and ``combat`` contain their physics, ``scenarios`` maps and scenario files, and
``players`` scripted players. Nothing here may import learning code or JaxMARL. The modules
``rules`` and ``scenario`` and the package ``scenarios`` may not import JAX.
"""
