"""Merge the pod template of a user into a pod. Pure."""

from typing import Any


def merged(base: Any, over: Any) -> Any:
    """Merge `over` into `base`: objects by key, list items by their `name`, unnamed items appended."""
    if isinstance(base, dict) and isinstance(over, dict):
        return base | {key: merged(base[key], value) if key in base else value for key, value in over.items()}
    if isinstance(base, list) and isinstance(over, list):
        mine, theirs = _by_name(base), _by_name(over)
        kept = [merged(item, theirs[_name(item)]) if _name(item) in theirs else item for item in base]
        return kept + [item for item in over if _name(item) is None or _name(item) not in mine]
    return over


def _by_name(items: list[Any]) -> dict[str | None, Any]:
    return {_name(item): item for item in items if _name(item) is not None}


def _name(item: Any) -> str | None:
    return item.get("name") if isinstance(item, dict) else None
