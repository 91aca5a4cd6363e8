"""The OpenAPI 3.1 description, made from the table of routes and the types they decode with.

Knows how a Struct becomes a schema. Refuses to describe anything by hand: what is not in the table
or in a type is not in the description.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from gateway.control.permissions import CATALOGUE
from gateway.http import problems
from gateway.http.idempotency import HEADER
from gateway.http.problems import TABLE, Problem
from gateway.http.serving import CORRELATION, PUBLIC, RAW, Route

_REF: Final = "#/components/schemas/{name}"
_VARIABLE: Final = re.compile(r"\{(\w+)\}")
_IDEMPOTENCY: Final = (
    "idempotency-key-missing",
    "idempotency-key-malformed",
    "idempotency-in-flight",
    "idempotency-key-reused",
)
_BODY: Final = (
    "malformed-json", "invalid-request", "unsupported-media-type", "body-too-large",
)  # fmt: skip
_CALLER: Final = ("unauthenticated", "forbidden", "limit-exceeded")
_ALWAYS: Final = ("malformed-request", "internal", "unavailable", "overloaded")


def document(routes: Iterable[Route], version: str) -> bytes:
    """The description as JSON."""
    table = tuple(routes)
    schemas, components = _schemas(table)
    paths: dict[str, dict[str, object]] = {}
    for route in table:
        operation = _operation(route, schemas)
        paths.setdefault(route.path, {})[route.method.lower()] = operation
    components["Problem"] = _open(components["Problem"])
    return msgspec.json.encode(
        {
            "openapi": "3.1.0",
            "info": {
                "title": "brokerd",
                "version": version,
                "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
                "description": _DESCRIPTION,
            },
            "servers": [{"url": "/"}],
            "paths": paths,
            "components": {
                "schemas": components,
                "securitySchemes": {
                    "key": {
                        "type": "http",
                        "scheme": "bearer",
                        "description": "An API key. Scopes: "
                        + "; ".join(f"`{each.name}` {each.says}" for each in CATALOGUE.values()),
                    }
                },
            },
        }
    )


_DESCRIPTION: Final = """\
Commands carry an Idempotency-Key: repeated with the same body they are answered the same, byte for
byte, for seven days. Money is a decimal string with a currency. Failures are RFC 9457 problems with
a stable `code`; follow their `type`.
"""


def _schemas(table: tuple[Route, ...]) -> tuple[dict[Any, Any], dict[str, Any]]:
    """The schema of each type the table names, and the components they refer to."""
    kinds: list[Any] = [Problem]
    for route in table:
        named = [*route.responses.values(), route.request]
        kinds += [kind for kind in named if kind is not None and kind is not RAW]
    unique = list(dict.fromkeys(kinds))
    found, components = msgspec.json.schema_components(unique, ref_template=_REF)
    return dict(zip(unique, found, strict=True)), components


def _open(schema: Mapping[str, Any]) -> dict[str, Any]:
    """A problem may carry facts of its code beside the standard members."""
    return {**schema, "additionalProperties": True}


def _operation(route: Route, schemas: Mapping[Any, Any]) -> dict[str, object]:
    operation: dict[str, object] = {
        "operationId": _operation_id(route),
        "summary": route.summary,
        "tags": [_tag(route)],
        "parameters": [*_path_parameters(route), *_query(route), *_headers(route)],
        "responses": {**_answers(route, schemas), **_failures(route)},
        "security": [] if route.scope == PUBLIC else [{"key": []}],
    }
    if route.scope != PUBLIC:
        operation["x-scope"] = route.scope
    if route.masked:
        operation["x-scope-masked"] = list(route.masked)
    if route.request is RAW:
        body = {route.takes: {"schema": {"type": "object"}}}
        operation["requestBody"] = {"required": True, "content": body}
    elif route.request is not None:
        body = {"application/json": {"schema": schemas[route.request]}}
        operation["requestBody"] = {"required": True, "content": body}
    return operation


def _operation_id(route: Route) -> str:
    words = [word for word in re.findall(r"\w+", route.path) if word != "v1"]
    page = ["page"] if route.media == "text/html" else []  # beside the same path under /v1
    return "_".join([route.method.lower(), *page, *words])


def _tag(route: Route) -> str:
    words = re.findall(r"\w+", route.path)
    return words[1] if words[0] == "v1" else "process"


def _path_parameters(route: Route) -> list[dict[str, object]]:
    return [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in _VARIABLE.findall(route.path)
    ]


def _query(route: Route) -> list[dict[str, object]]:
    if route.params is None:
        return []
    _, components = msgspec.json.schema_components([route.params], ref_template=_REF)
    properties = components[route.params.__name__]["properties"]
    return [
        {"name": name, "in": "query", "required": False, "schema": _inline(schema, components)}
        for name, schema in properties.items()
    ]


def _inline(schema: Mapping[str, Any], components: Mapping[str, Any]) -> Mapping[str, Any]:
    """A parameter's schema without references: parameters are small and stand alone."""
    if "$ref" in schema:
        target: Mapping[str, Any] = components[schema["$ref"].rpartition("/")[2]]
        return target
    if "anyOf" in schema:
        return {**schema, "anyOf": [_inline(each, components) for each in schema["anyOf"]]}
    return schema


def _headers(route: Route) -> list[dict[str, object]]:
    correlation = {
        "name": CORRELATION,
        "in": "header",
        "required": False,
        "description": "Joins everything that follows; made when absent or malformed.",
        "schema": {"type": "string", "maxLength": 64},
    }
    if not route.idempotent:
        return [correlation]
    key = {
        "name": HEADER,
        "in": "header",
        "required": True,
        "schema": {"type": "string", "minLength": 1, "maxLength": 128},
    }
    return [key, correlation]


def _answers(route: Route, schemas: Mapping[Any, Any]) -> dict[str, object]:
    answers: dict[str, object] = {}
    for status, kind in route.responses.items():
        answer: dict[str, object] = {"description": route.summary}
        if route.streams:
            answer["content"] = {"text/event-stream": {"schema": {"type": "string"}}}
        elif kind is None:
            answer["content"] = {route.media: {"schema": {"type": "string"}}}
        else:
            answer["content"] = {"application/json": {"schema": schemas[kind]}}
        if status in (201, 202):
            answer["headers"] = {"Location": {"schema": {"type": "string"}}}
        answers[str(status)] = answer
    return answers


def _failures(route: Route) -> dict[str, object]:
    """Every problem of the route, one answer a status, with the codes it may bear."""
    by_status: dict[int, list[str]] = {}
    for code in _codes(route):
        by_status.setdefault(TABLE[code].status, []).append(code)
    return {
        str(status): {
            "description": "Problem: " + ", ".join(f"`{code}`" for code in codes),
            "content": {problems.MEDIA_TYPE: {"schema": {"$ref": _REF.format(name="Problem")}}},
        }
        for status, codes in sorted(by_status.items())
        if status not in route.responses
    }


def _codes(route: Route) -> list[str]:
    codes = list(_ALWAYS)
    if route.scope != PUBLIC:
        codes += _CALLER
    if route.idempotent:
        codes += _IDEMPOTENCY
    if route.request is RAW:
        codes += ["body-too-large"]
    elif route.request is not None:
        codes += _BODY
    if route.params is not None:
        codes.append("invalid-parameter")
    if _VARIABLE.search(route.path) or route.request is not None:
        codes.append("not-found")
    return list(dict.fromkeys([*codes, *route.problems]))
