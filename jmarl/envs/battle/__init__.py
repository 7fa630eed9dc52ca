"""Simulator of battles: ``smax_*``, ``smac_*``, ``smacv2_*``, and those of scenario files.

``smax`` and ``smac`` hold the two physics with their observations and opponents, ``combat`` units
and weapons of SMAC, ``scenarios`` maps and scenario files. Nothing here may import learning code or
JaxMARL. The modules ``rules`` and ``scenario`` and the package ``scenarios`` may not import JAX.
"""
