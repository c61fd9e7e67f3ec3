"""Merge the pod template of a user into a pod. Pure."""

from typing import Any


def merged(base: Any, over: Any) -> Any:
    """Merge `over` into `base`.

    Objects are merged by key. Objects in lists are merged by their mount path, or else by their name; those without
    either are appended. Other lists, such as a command, are replaced.
    """
    if isinstance(base, dict) and isinstance(over, dict):
        return base | {key: merged(base[key], value) if key in base else value for key, value in over.items()}
    if isinstance(base, list) and isinstance(over, list) and _objects(base) and _objects(over):
        theirs = {_identity(item): item for item in over if _identity(item) is not None}
        mine = {_identity(item) for item in base}
        kept = [merged(item, theirs[_identity(item)]) if _identity(item) in theirs else item for item in base]
        return kept + [item for item in over if _identity(item) is None or _identity(item) not in mine]
    return over


def _objects(items: list[Any]) -> bool:
    return all(isinstance(item, dict) for item in items)


def _identity(item: dict[str, Any]) -> tuple[str, str] | None:
    return next(((key, item[key]) for key in ("mountPath", "name") if key in item), None)
