"""Environments: the registry, wrappers of single environments, adapters, probes and battles.

Networks, losses and training loops may not be imported here.
"""

from jmarl.envs.registry import FAMILIES, Family, family_of, make, names, register


__all__ = ["FAMILIES", "Family", "family_of", "make", "names", "register"]
