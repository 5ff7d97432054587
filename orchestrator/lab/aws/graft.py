"""How the lab extends moto: every replaced or added name is checked against the pinned release.

moto's models are not a public interface, so an upgrade that moves one must fail when the lab starts, not in a test run.
"""

from __future__ import annotations


def override(owner: object, name: str, new: object) -> None:
    """Replace what moto has; raises AttributeError when this moto has no such name."""
    getattr(owner, name)
    setattr(owner, name, new)


def add(owner: object, name: str, new: object) -> None:
    """Add what moto lacks; raises AttributeError when this moto has learnt it, so that ours can go."""
    present = getattr(owner, name, None)
    if present is not None and getattr(present, "__module__", "").startswith("moto."):
        raise AttributeError(f"moto has {name} now: remove the lab's own")
    setattr(owner, name, new)
