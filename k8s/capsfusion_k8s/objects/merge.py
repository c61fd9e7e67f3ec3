"""Merge the pod template of a user into a pod, and compare specifications. Pure."""

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


def differences(wanted: Any, found: Any, path: str = "spec") -> list[str]:
    """Return where `found` differs from `wanted`, one line per field.

    What others added (defaults, a queue's node selector) is no difference. Items of a list are compared by their name
    or manager, others by their place.
    """
    if isinstance(wanted, dict) and isinstance(found, dict):
        return [line for key, value in wanted.items() for line in differences(value, found.get(key), f"{path}.{key}")]
    if isinstance(wanted, list) and isinstance(found, list) and len(wanted) <= len(found):
        named = {_identity(item): item for item in found if _identity(item) is not None}
        return [
            line
            for at, item in enumerate(wanted)
            for line in differences(item, named.get(_identity(item), found[at]), f"{path}[{at}]")
        ]
    return [] if wanted == found else [f"{path} is {str(found)[:60]}, not {str(wanted)[:60]}"]


def _objects(items: list[Any]) -> bool:
    return all(isinstance(item, dict) for item in items)


def _identity(item: Any) -> tuple[str, str] | None:
    """Return what tells an object in a list from the others, or None."""
    keys = ("manager", "mountPath", "name") if isinstance(item, dict) else ()
    return next(((key, item[key]) for key in keys if key in item), None)
