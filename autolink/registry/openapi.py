"""The public side's operations as one table's rows, and the OpenAPI 3.1 document that follows from them.

Both the routes and the document are made of the same `Operation`s, and the schemas of the same types that the answers are
built with (`views`), so they cannot say different things.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, final

from pydantic import TypeAdapter

from autolink.registry.views import ErrorView

JSON: Final = "application/json"
BYTES: Final = "application/octet-stream"
TEXT: Final = "text/plain; charset=utf-8"

_SCHEMAS: Final = "#/components/schemas/"


@final
@dataclass(frozen=True, slots=True)
class Parameter:
    """One part of a path, or of a query (which may be left out)."""

    name: str
    schema: Mapping[str, Any]
    text: str
    where: str = "path"
    example: object = None


@final
@dataclass(frozen=True, slots=True)
class Asked:
    """One request, as far as it matters: its parameters as they came, and two headers."""

    path: Mapping[str, str]
    query: Mapping[str, str]
    accept: str = ""
    accept_encoding: str = ""


@final
@dataclass(frozen=True, slots=True)
class Reply:
    """A good answer."""

    body: bytes
    media_type: str
    cache: str
    headers: Mapping[str, str] = field(default_factory=dict)


@final
@dataclass(frozen=True, slots=True)
class Operation:
    """One thing that can be asked for with GET.

    Attributes:
        path: with its parameters in braces.
        name: the operation's id.
        summary: one line.
        media: what may be answered: a type from `views` for JSON, None for bytes.
        answer: makes the answer; may block.
        parameters: of the path and of the query.
        large: its answers are counted (`limits.HTTP_LARGE`).
    """

    path: str
    name: str
    summary: str
    media: Mapping[str, Any]
    answer: Callable[[Asked], Reply]
    parameters: Sequence[Parameter] = ()
    large: bool = False


def document(operations: Sequence[Operation], *, title: str, version: str) -> dict[str, Any]:
    """The OpenAPI document of these operations."""
    schemas: dict[str, Any] = {}
    paths = {one.path: {"get": _operation(one, schemas)} for one in operations}
    return {
        "openapi": "3.1.0",
        "info": {"title": title, "version": version, "license": {"name": "Apache-2.0"}},
        "paths": paths,
        "components": {"schemas": schemas},
    }


def _operation(operation: Operation, schemas: dict[str, Any]) -> dict[str, Any]:
    faults = {"default": _fault("Refused, or failed.", schemas)}
    if operation.parameters:
        faults |= {
            "400": _fault("A parameter is not what it must be.", schemas),
            "404": _fault("There is none.", schemas),
        }
    content = {name: _media(made, schemas) for name, made in operation.media.items()}
    return {
        "operationId": operation.name,
        "summary": operation.summary,
        "parameters": [_parameter(one) for one in operation.parameters],
        "responses": {"200": {"description": "The answer.", "content": content}} | faults,
    }  # fmt: skip


def _parameter(parameter: Parameter) -> dict[str, Any]:
    described = {
        "name": parameter.name, "in": parameter.where, "required": parameter.where == "path",
        "description": parameter.text, "schema": dict(parameter.schema),
    }  # fmt: skip
    return described if parameter.example is None else {**described, "example": parameter.example}


def _fault(text: str, schemas: dict[str, Any]) -> dict[str, Any]:
    return {"description": text, "content": {JSON: _media(ErrorView, schemas)}}


def _media(made: Any, schemas: dict[str, Any]) -> dict[str, Any]:  # noqa: ANN401  a type of views, or None
    if made is None:
        return {}
    schema = TypeAdapter(made).json_schema(ref_template=_SCHEMAS + "{model}")
    schemas |= schema.pop("$defs", {})
    schemas[made.__name__] = schema
    return {"schema": {"$ref": _SCHEMAS + made.__name__}}
