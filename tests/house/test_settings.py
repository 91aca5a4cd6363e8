"""Settings are documented: what can be set is written where an operator looks.

Knows the shape of the settings from their types. Refuses to know what a setting does.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import get_args, get_origin, get_type_hints

import msgspec

from config.settings import Settings
from tests.house.tree import text


def keys(section: type, prefix: str = "") -> Iterator[str]:
    """The dotted keys of a settings Struct; `<id>` stands for the name of one of many."""
    hints = get_type_hints(section)
    for field in msgspec.structs.fields(section):
        inner, many = struct_of(hints[field.name])
        name = f"{prefix}{field.encode_name}"
        if inner is None:
            yield name
        else:
            yield from keys(inner, f"{name}.<id>." if many else f"{name}.")


def struct_of(annotation: object) -> tuple[type | None, bool]:
    """The Struct inside an annotation, if there is one, and whether it is one of many by name."""
    if isinstance(annotation, type) and issubclass(annotation, msgspec.Struct):
        return annotation, False
    many = get_origin(annotation) is not None and issubclass_of_mapping(get_origin(annotation))
    for part in get_args(annotation):
        inner, deeper = struct_of(part)
        if inner is not None:
            return inner, many or deeper
    return None, False


def issubclass_of_mapping(origin: object) -> bool:
    """Whether a generic's origin is a mapping."""
    return isinstance(origin, type) and hasattr(origin, "keys")


def test_every_setting_is_documented() -> None:
    """Each setting stands in docs/settings.md under its full name, section and key."""
    document = text(Path("docs/settings.md"))
    missing = [key for key in keys(Settings) if f"`{key}`" not in document]
    assert not missing, f"document in docs/settings.md, each as `section.key`: {missing}"
