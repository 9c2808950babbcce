"""JSON that anybody may have written: bounded in size, an object at the top, no name twice in one object."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from webllm.errors import BadModel


def json_object(data: bytes, name: str) -> dict[str, Any]:
    """The object that `data` holds. name: the file, for messages. Raises `BadModel` for anything else.

    Whoever reads `data` bounds its size.
    """
    try:
        value = json.loads(data.decode(), object_pairs_hook=_unique)
    except _Twice as error:
        raise BadModel(f"{name}: {str(error)[:80]!r} occurs twice in one object") from None
    except UnicodeDecodeError:
        raise BadModel(f"{name}: no JSON: it is not UTF-8") from None
    except (ValueError, RecursionError) as error:
        raise BadModel(f"{name}: no JSON: {str(error)[:200]}") from None
    if not isinstance(value, dict):
        raise BadModel(f"{name}: wanted a JSON object, got {type(value).__name__}")
    return value


class _Twice(Exception):
    """A name that an object has twice."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise _Twice(Counter(name for name, _ in pairs).most_common(1)[0][0])
    return found
