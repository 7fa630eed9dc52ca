"""Vectors in the plane as pairs of arrays, x and y."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array


Vector = tuple[Array, Array]
"""x and y, of shapes that broadcast."""
LEAST_LENGTH = 1e-3
"""Length below which a direction is shorter than one, to avoid a division by zero."""


def minus(a: Vector, b: Vector) -> Vector:
    """Return the way from b to a."""
    return a[0] - b[0], a[1] - b[1]


def dot(a: Vector, b: Vector) -> Array:
    """Return the scalar product."""
    return a[0] * b[0] + a[1] * b[1]


def length(vector: Vector) -> Array:
    """Return the length."""
    x, y = vector
    return jnp.sqrt(x**2 + y**2)


def direction(
    vector: Vector,
    least: float = LEAST_LENGTH,
) -> Vector:
    """Return the unit vector; a vector shorter than ``least`` is divided by ``least``."""
    x, y = vector
    divisor = jnp.maximum(length(vector), least)
    return x / divisor, y / divisor


def resized(
    vector: Vector,
    amount: Array,
) -> Vector:
    """Return a vector of another length in the same direction."""
    x, y = vector
    divisor = jnp.maximum(length(vector), LEAST_LENGTH)
    return amount * x / divisor, amount * y / divisor


def rotated(vector: Vector, cosine: Array | float, sine: Array | float) -> Vector:
    """Return a vector that is turned by an angle, from x towards y."""
    x, y = vector
    return cosine * x - sine * y, cosine * y + sine * x


def where(mask: Array, a: Vector, b: Vector) -> Vector:
    """Return a where the mask is True, and b elsewhere."""
    return jnp.where(mask, a[0], b[0]), jnp.where(mask, a[1], b[1])


def direction_or(
    vector: Vector,
    slow: float,
    rest: Vector,
) -> Vector:
    """Return the unit vector, or ``rest`` where the vector is not longer than ``slow``."""
    x, y = vector
    amount = length(vector)
    divisor = jnp.maximum(amount, 1e-6)
    return where(amount > slow, (x / divisor, y / divisor), rest)


def approach(
    way: Vector,
    limit: Array | float,
    gain: float,
    slowest: float = 0.0,
    stop: float = 0.0,
) -> Vector:
    """Return the velocity towards a place, slower near it.

    Args:
        way: Way to the place, meters.
        limit: Largest speed, m/s.
        gain: Growth of the speed with the distance, 1/s.
        slowest: Speed at the place, m/s.
        stop: Distance below which the velocity is zero, in meters.
    """
    x, y = way
    apart = jnp.maximum(length(way), LEAST_LENGTH)
    speed = jnp.minimum(limit, slowest + gain * apart)
    if stop:
        speed = jnp.where(apart < stop, 0.0, speed)
    return speed * x / apart, speed * y / apart
