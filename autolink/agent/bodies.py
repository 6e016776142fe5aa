"""One type's way into a message body and back.

Without an annotation (or with Any or object) a body is a plain msgpack value. With one, pydantic stands between:
what is sent is dumped in Python form, so bytes stay bytes and datetimes stay instants, and every type that msgpack
does not know takes the form it has in JSON; what is received is validated in pydantic's lax mode, which reads those
forms back. A wrong body is told by path and kind, never by value: an error text must not echo a password.
"""

from datetime import datetime
from functools import lru_cache
from inspect import Parameter
from typing import Any, Final, Generic, TypeVar

from pydantic import PydanticUserError, TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError, to_jsonable_python

from autolink import limits
from autolink.codec import decode_untrusted, encode
from autolink.errors import BodyError, RemoteProtocolError, UsageError, display

T = TypeVar("T")

_PLAIN: Final = (Any, object, Parameter.empty)  # no set: an annotation need not have a hash
_PLAIN_TYPES: Final = frozenset({type(None), bool, int, float, str, bytes, list, dict, tuple, datetime})
_EXACT: Final[tuple[object, ...]] = (type(None), bool, int, float, str, bytes)
_NESTING: Final[frozenset[object]] = frozenset({list, dict, tuple})
_NAMED_BY_VALUE: Final = frozenset({"value_error", "assertion_error"})


class Body(Generic[T]):
    """Encodes and decodes the bodies of one type. Made by `body_of`."""

    __slots__ = ("_adapter", "_exact")

    def __init__(self, adapter: TypeAdapter[T] | None, exact: object = None) -> None:
        self._adapter = adapter
        self._exact = exact  # values of just this type pydantic would let through as they are

    def encode(self, value: T) -> bytes:
        """The body's bytes.

        Raises:
            BodyError: the value is not of the type, cannot be encoded, or is larger than `limits.MESSAGE`.
        """
        kind: object = type(value)
        if self._adapter is None or kind is self._exact:
            encoded = encode(value, default=to_jsonable_python) if kind in _NESTING else encode(value)
        else:
            try:
                checked = self._adapter.validate_python(value)
                encoded = encode(
                    self._adapter.dump_python(checked, mode="python"), default=to_jsonable_python
                )
            except ValidationError as error:
                raise BodyError(_summary(error)) from None
            except PydanticSerializationError as error:
                raise BodyError(f"cannot be encoded ({type(error).__name__})") from None
        if len(encoded) > limits.MESSAGE:
            raise BodyError(
                f"{len(encoded)} bytes; a message holds {limits.MESSAGE}, more goes through send_stream"
            )
        return encoded

    def decode_untrusted(self, data: bytes) -> T:
        """The value in the bytes of a peer's body.

        Raises:
            BodyError: the bytes hold no value, or one that the type does not allow.
        """
        try:
            value: T = decode_untrusted(data, what="body")
        except RemoteProtocolError as error:
            raise BodyError(str(error)) from None
        if self._adapter is None or type(value) is self._exact:
            return value
        try:
            return self._adapter.validate_python(value)
        except ValidationError as error:
            raise BodyError(_summary(error)) from None

    def schema(self, *, receives: bool) -> dict[str, Any]:
        """JSON schema (draft 2020-12) of what is received or sent; empty for any plain value. What JSON lacks, such as
        bytes, is described in the form that JSON would give it.

        Raises:
            UsageError: pydantic has none for the type.
        """
        if self._adapter is None:
            return {}
        try:
            return self._adapter.json_schema(mode="validation" if receives else "serialization")
        except PydanticUserError as error:
            raise UsageError(f"a body that JSON schema cannot describe: {error.message}") from error


_ANY: Final = Body[Any](None)


def encode_any(value: object) -> bytes:
    """The bytes of a body by the value's own type: plain values as they are, everything else as pydantic dumps it.

    Raises:
        BodyError: as `Body.encode`.
    """
    return (_ANY if type(value) in _PLAIN_TYPES else body_of(type(value))).encode(value)


def body_of(annotation: Any) -> Body[Any]:  # noqa: ANN401
    """The `Body` of a type annotation; built once for each.

    Raises:
        UsageError: pydantic cannot handle the annotation.
    """
    try:
        return _body_of(annotation)
    except TypeError:  # not hashable, so not cached
        return _build(annotation)


def _build(annotation: Any) -> Body[Any]:  # noqa: ANN401
    if annotation is None:
        annotation = type(None)
    elif annotation in _PLAIN:
        return Body(None)
    try:
        return Body(TypeAdapter(annotation), annotation if annotation in _EXACT else None)
    except PydanticUserError as error:
        raise UsageError(f"{display(str(annotation))} cannot be a body: {error.message}") from error


_body_of = lru_cache(maxsize=1024)(_build)


def _summary(error: ValidationError) -> str:
    """At most `limits.BODY_ERRORS` errors; no input, no URL, no text that a validator made from the value."""
    found = error.errors(include_url=False, include_context=False, include_input=False)
    shown = [
        f"{display('.'.join(map(str, one['loc']))) or 'body'}: "
        f"{one['type'] if one['type'] in _NAMED_BY_VALUE else display(one['msg'])}"
        for one in found[: limits.BODY_ERRORS]
    ]
    more = [f"and {len(found) - len(shown)} more"] if len(found) > len(shown) else []
    return "; ".join(shown + more)
