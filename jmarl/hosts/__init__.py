"""One run on several processes, usually on several hosts: connection, shared values, failures.

``start`` connects the processes, and ``watch`` ends all if one is lost. Other modules use
``process_group`` and ``arrays``, which are no-ops in a run of one process.
"""
