"""Grid worlds as their benchmarks have them: warehouses ``rware_*`` and foraging ``lbf_*``.

``grid_names`` may not import JAX.
"""
