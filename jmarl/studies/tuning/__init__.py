"""Tuning of hyper-parameters with Optuna: search spaces, trials as runs, and the winner's preset.

Optuna is imported only in ``trial_store``.
"""
