"""The largest number of environments that fits into the memory of a target."""

from __future__ import annotations

from collections.abc import Sequence

from jmarl.forecast.compile_plan import Plan, plan_run


STEP = 8
"""The number of environments is a multiple of this."""


def largest_num_envs(system: str, overrides: Sequence[str], large: Plan) -> int:
    """Return the largest number of environments that should fit.

    The memory of two sizes gives a straight line: that of the plan, and an eighth of it, at the
    same rollout length. Only the second one is compiled.

    Args:
        system: The system.
        overrides: Overrides of the plan.
        large: A plan that does not fit.

    Returns:
        The number; 0 if even a few environments need too much.

    Raises:
        ResourceError: If XLA does not compile the smaller size because it would not fit.
    """
    config = large.config
    few = max(STEP, config.num_envs // 8 // STEP * STEP)
    sizes = [f"num_envs={few}", f"rollout_length={config.rollout_length}"]
    kept = [word for word in overrides if not word.startswith("num_envs=")]
    small = plan_run(system, [*kept, *sizes], large.target)
    most = fitting(few, small.needed, config.num_envs, large.needed, large.usable)
    return most // STEP * STEP


def fitting(few: int, low: int, many: int, high: int, usable: int) -> int:
    """Return the number at which a line through two points reaches the usable memory.

    Args:
        few: The smaller number.
        low: Its bytes.
        many: The larger number.
        high: Its bytes.
        usable: Bytes of a device.
    """
    if many <= few or high <= low:
        return 0
    each = (high - low) / (many - few)
    return max(0, int(few + (usable - low) / each))
