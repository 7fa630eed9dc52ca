"""Amount of learning in a run: text of its first lines, and warnings about its sizes."""

from __future__ import annotations

from collections.abc import Iterator

from jmarl.config.hardware import MAX_DEVIATION
from jmarl.config.schema import RunConfig


MIN_GRADIENT_STEPS = 300
"""Fewest gradient steps of a run without a warning."""
MIN_TARGET_UPDATES = 20
"""Fewest updates of the target network in a run without a warning."""


def learning_text(config: RunConfig) -> str:
    """Describe the amount of learning, such as ``2,736 gradient steps, one per 256 rows``."""
    rows = config.rows_per_update / config.system.steps_per_update
    parts = [
        f"{config.gradient_steps:,} gradient steps",
        f"one per {_rows_text(rows)} rows",
    ]
    if config.warmup_updates:
        first = (config.warmup_updates + 1) * config.rows_per_update
        parts.append(f"the first after {first:,} rows")
    if every := config.system.steps_per_target_update:
        parts.append(f"{config.gradient_steps // every:,} target updates")
    return ", ".join(parts)


def _rows_text(rows: float) -> str:
    return f"{rows:,.0f}" if rows >= 10 else f"{rows:.2g}"


def learning_warnings(config: RunConfig) -> Iterator[str]:
    """Yield a line for each size that leaves less learning, or other, than requested."""
    rows, system = config.rows_per_update, config.system
    if rows > config.total_timesteps:
        yield (
            f"total_timesteps={config.total_timesteps:,} is less than the {rows:,} rows of one "
            "update (num_envs x rollout_length); lower num_envs, or raise total_timesteps"
        )
    actual = rows / system.steps_per_update
    asked = system.rows_per_step or actual
    if asked > 1 and not 1 / MAX_DEVIATION <= actual / asked <= MAX_DEVIATION:
        few = "raise num_envs to a multiple of 8, or lower rollout_length"
        many = "raise num_envs or rollout_length"
        yield (
            f"num_envs={config.num_envs:,} with rollout_length={config.rollout_length:,} allows "
            f"one gradient step per {_rows_text(actual)} rows, not per {_rows_text(asked)}; "
            f"{few if actual > asked else many}"
        )
    if system.rows_per_step and config.gradient_steps < MIN_GRADIENT_STEPS:
        yield (
            f"{config.gradient_steps:,} gradient steps are few, {MIN_GRADIENT_STEPS} or more are "
            "usual; raise total_timesteps"
        )
    every = system.steps_per_target_update
    if every and config.gradient_steps < every * MIN_TARGET_UPDATES:
        yield (
            f"the target network changes {config.gradient_steps // every:,} times, "
            f"{MIN_TARGET_UPDATES} or more are usual; lower system.target_every"
        )
