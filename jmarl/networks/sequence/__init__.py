"""Sequence policies of MAT, MAM and Sable: encoder, autoregressive decoder and their token mixers.

Modules here must not import systems, environments or losses; layers without agents or actions
belong in ``jmarl.nn`` or ``jmarl.ssm``.
"""
