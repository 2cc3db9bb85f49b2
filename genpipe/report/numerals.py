"""Numbers as text."""

import math


def count(value: float) -> str:
    """A whole number as people write it."""
    return f"{value:,.0f}"


def figure(value: float, unit: str = "") -> str:
    """A number as people write it, with three or four digits that matter."""
    if not math.isfinite(value):
        return "not defined"
    if unit == "%":
        return f"{100 * value:.1f}"
    if float(value).is_integer() and abs(value) >= 100:
        return f"{value:,.0f}".replace("-", "−")
    size = abs(value)
    if size == 0:
        return "0"
    if size < 1e-4:
        return f"{value:.1e}".replace("-", "−")
    decimals = 0 if size >= 1000 else 1 if size >= 100 else 2 if size >= 10 else 3 if size >= 0.1 else 4
    return f"{value:,.{decimals}f}".replace("-", "−")
