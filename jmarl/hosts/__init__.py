"""Runs on several processes, usually on several hosts: who writes, and what all agree on.

``start`` connects the processes, and ``watch`` ends all if one is lost. The rest of jmarl asks
``process_group`` and ``arrays``, which do nothing special in a run of one process.
"""
