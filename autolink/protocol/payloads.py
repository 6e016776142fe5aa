"""The payloads that are maps: HELLO, ACCEPT, REFUSE, EVIDENCE, GOAWAY. Unknown fields are ignored, known ones typed.

Codes and reasons cross the wire here: a code as its place in `errors.Code`, from 1, a reason by its name. A number or
a name that we do not know is `unknown` and `untrusted`: a newer peer may have more of them.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final, TypeVar

from autolink import codec, limits
from autolink.errors import Code, Reason, RemoteProtocolError, wire_reason
from autolink.protocol.events import EvidenceReceived, GoAwayReceived, HelloReceived, Limits, RefuseReceived
from autolink.protocol.frames import GREASE, LAST_CHANNEL, Frame, encode_frame

T = TypeVar("T")

_U32: Final = 2**32 - 1
_I63: Final = 2**63 - 1
_CODES: Final = tuple(Code)
_NUMBERS: Final = {code: number for number, code in enumerate(_CODES, 1)}
_REASONS: Final = {reason.value: reason for reason in Reason}


def code_number(code: Code) -> int:
    """A code as CANCEL carries it."""
    return _NUMBERS[code]


def code_of(number: int) -> Code:
    """The code of a CANCEL."""
    return _CODES[number - 1] if 0 < number <= len(_CODES) else Code.UNKNOWN


def hello_payload(
    fields: Mapping[str, object], versions: tuple[int, ...], ours: Limits, grease: int
) -> bytes:
    """A HELLO of these fields, and of what the protocol itself has to say."""
    clock, software = fields.get("clock"), fields.get("software")
    usual = list(fields) == _USUAL
    if usual and type(clock) is int and type(software) is str and _LEAST_CLOCK <= clock <= _I63:
        said = _said_with_clock(software, versions, ours, grease)
        return said[:_CLOCK] + clock.to_bytes(8) + said[_CLOCK + 8 :]
    return _hello_payload(fields, versions, ours, grease)


def parse_hello(payload: bytes, versions: tuple[int, ...]) -> HelloReceived:
    """The peer's HELLO, with the highest of our `versions` that it speaks.

    Raises:
        RemoteProtocolError: a field is missing or of another type.
    """
    end = _CLOCK + 8
    clock = int.from_bytes(payload[_CLOCK:end])
    if (
        payload[1:_CLOCK] != _CLOCK_NAME
        or not _LEAST_CLOCK <= clock <= _I63
        or len(payload) > limits.HELLO_KEPT
    ):
        return _parse_hello(payload, versions)
    like = _parse_short_hello(payload[:_CLOCK] + _LEAST_CLOCK.to_bytes(8) + payload[end:], versions)
    return HelloReceived(
        like.version, clock, like.software, like.limits, like.features, like.chain, like.evidence,
        {**like.fields, "clock": clock},
    )  # fmt: skip


def _hello_payload(
    fields: Mapping[str, object], versions: tuple[int, ...], ours: Limits, grease: int
) -> bytes:
    own = {
        "versions": list(versions),
        "limits": {"channels": ours.channels, "credit": ours.credit, "message": ours.message},
        f"grease-{grease}": grease,
    }
    return codec.encode(dict(fields) | own)


def _parse_hello(payload: bytes, versions: tuple[int, ...]) -> HelloReceived:
    fields = _map(payload, "HELLO")
    spoken = set(_list(fields, "HELLO", "versions", int))
    allowed = _value(fields, "HELLO", "limits", dict)
    return HelloReceived(
        version=max(spoken.intersection(versions), default=None),
        clock=_integer(fields, "clock", 0, _I63),
        software=_value(fields, "HELLO", "software", str),
        limits=Limits(
            channels=_integer(allowed, "channels", 0, LAST_CHANNEL),
            credit=_integer(allowed, "credit", 1, _U32),
            message=_integer(allowed, "message", 1, _U32),
        ),
        features=_list(fields, "HELLO", "features", str, ()),
        chain=_chain(fields, "HELLO"),
        evidence=_evidence(fields, "HELLO"),
        fields=fields,
    )


# The HELLOs of one program differ in the clock only, which stands first and in nine bytes: what is before and behind is
# written and read once. What was read of it is a fact about these bytes; what cannot be read is not kept.

_USUAL: Final = ["clock", "software"]
_CLOCK_NAME: Final = b"\xa5clock\xcf"
_CLOCK: Final = 1 + len(_CLOCK_NAME)
_LEAST_CLOCK: Final = 2**32  # of those that msgpack writes in nine bytes
_parse_short_hello: Final = lru_cache(maxsize=limits.HELLOS_KEPT)(_parse_hello)


@lru_cache(maxsize=64)
def _said_with_clock(software: str, versions: tuple[int, ...], ours: Limits, grease: int) -> bytes:
    return _hello_payload({"clock": _LEAST_CLOCK, "software": software}, versions, ours, grease)


@lru_cache(maxsize=16)
def accept_payload(version: int) -> bytes:
    """ACCEPT: the version that both speak."""
    return codec.encode({"version": version})


@lru_cache(maxsize=64)
def accept_frames(version: int, grease: int) -> bytes:
    """ACCEPT, and behind it an extension that will never mean anything."""
    return encode_frame(Frame.ACCEPT, accept_payload(version)) + encode_frame(GREASE[grease], b"")


def parse_accept(payload: bytes) -> int:
    """The version that the peer's ACCEPT names.

    Raises:
        RemoteProtocolError: it names none.
    """
    return (_parse_accept if len(payload) > limits.HELLO_KEPT else _parse_short_accept)(payload)


def _parse_accept(payload: bytes) -> int:
    return _value(_map(payload, "ACCEPT"), "ACCEPT", "version", int)


_parse_short_accept: Final = lru_cache(maxsize=16)(_parse_accept)


def refuse_payload(reason: Reason, offset: float | None) -> bytes:
    """REFUSE: the reason as far as the wire may know it, and seconds as whole microseconds."""
    fields: dict[str, object] = {"reason": wire_reason(reason).value}
    if offset is not None:
        fields["offset"] = round(offset * 1_000_000)
    return codec.encode(fields)


def parse_refuse(payload: bytes) -> RefuseReceived:
    """The peer's REFUSE.

    Raises:
        RemoteProtocolError: a field is of another type.
    """
    fields = _map(payload, "REFUSE")
    reason = _REASONS.get(_value(fields, "REFUSE", "reason", str), Reason.UNTRUSTED)
    offset = _value(fields, "REFUSE", "offset", int) / 1_000_000 if "offset" in fields else None
    return RefuseReceived(wire_reason(reason), offset)


def parse_evidence(payload: bytes) -> EvidenceReceived:
    """The peer's EVIDENCE.

    Raises:
        RemoteProtocolError: a field is of another type.
    """
    fields = _map(payload, "EVIDENCE")
    return EvidenceReceived(_chain(fields, "EVIDENCE"), _evidence(fields, "EVIDENCE"))


def parse_go_away(payload: bytes) -> GoAwayReceived:
    """The peer's GOAWAY.

    Raises:
        RemoteProtocolError: a field is missing or of another type.
    """
    fields = _map(payload, "GOAWAY")
    return GoAwayReceived(_value(fields, "GOAWAY", "last", int), _value(fields, "GOAWAY", "reason", str))


def _map(payload: bytes, what: str) -> Mapping[str, Any]:
    fields = codec.decode_untrusted(payload, what=what, nodes=limits.CONTROL_NODES)
    if type(fields) is not dict:
        raise RemoteProtocolError(f"{what} is no map")
    return fields


def _value(fields: Mapping[str, Any], what: str, name: str, kind: type[T]) -> T:
    value = fields.get(name)
    if type(value) is not kind:  # not isinstance: True is an int
        raise RemoteProtocolError(f"{what}: `{name}` is missing or no {kind.__name__}")
    return value


def _integer(fields: Mapping[str, Any], name: str, least: int, most: int) -> int:
    value = _value(fields, "HELLO", name, int)
    if not least <= value <= most:
        raise RemoteProtocolError(f"HELLO: `{name}` is not {least} to {most}")
    return value


def _list(
    fields: Mapping[str, Any], what: str, name: str, kind: type[T], default: tuple[T, ...] | None = None
) -> tuple[T, ...]:
    if default is not None and name not in fields:
        return default
    values = _value(fields, what, name, list)
    if any(type(value) is not kind for value in values):
        raise RemoteProtocolError(f"{what}: `{name}` holds something that is no {kind.__name__}")
    return tuple(values)


def _chain(fields: Mapping[str, Any], what: str) -> tuple[bytes, ...]:
    chain = _list(fields, what, "chain", bytes, ())
    if len(chain) > limits.CHAIN:
        raise RemoteProtocolError(f"{what}: {len(chain)} certificates, {limits.CHAIN} are possible")
    return chain


def _evidence(fields: Mapping[str, Any], what: str) -> tuple[bytes, ...]:
    evidence = _list(fields, what, "evidence", bytes, ())
    if len(evidence) > limits.EVIDENCE:
        raise RemoteProtocolError(
            f"{what}: {len(evidence)} items of evidence, {limits.EVIDENCE} are possible"
        )
    return evidence
