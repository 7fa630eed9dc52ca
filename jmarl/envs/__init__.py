"""Worlds: each gives a ``Spec`` and ``TimeStep``s of ``EntityObs``. ``make(name, **options)`` builds one."""

from jmarl.envs.registry import FAMILIES, Family, family_of, make, names, register


__all__ = ["FAMILIES", "Family", "family_of", "make", "names", "register"]
