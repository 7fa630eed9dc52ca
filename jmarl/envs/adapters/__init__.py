"""Adapters that present environments of other packages as ``Env``.

Rules of an environment may not be written here: an adapter converts shapes, actions and flags.
"""
