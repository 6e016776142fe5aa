"""Bodies: what annotations make of them, and how little an error says about a wrong one."""

from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from typing import Annotated
from uuid import UUID

import pytest
from pydantic import BaseModel, SecretStr, field_validator

from autolink import BodyError, UsageError, codec, limits
from autolink.agent.bodies import body_of, encode_any


class Colour(Enum):
    RED = "red"


class Order(BaseModel):
    id: UUID
    price: Decimal
    at: datetime
    data: bytes
    colour: Colour
    password: SecretStr = SecretStr("")


ORDER = Order(
    id=UUID(int=7), price=Decimal("2.50"), at=datetime(2026, 1, 2, tzinfo=UTC), data=b"\x00\xff", colour=Colour.RED
)  # fmt: skip


def test_a_models_types_that_msgpack_does_not_know_travel_in_their_json_form_and_come_back():
    body = body_of(Order)
    sent = body.encode(ORDER)
    plain = codec.decode_untrusted(sent, what="body")
    assert plain["price"] == "2.50"
    assert plain["data"] == b"\x00\xff"
    assert plain["at"] == ORDER.at
    assert body.decode_untrusted(sent) == ORDER
    assert encode_any(ORDER) == sent


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        2**63 - 1,
        -(2**63),
        1.5,
        "text",
        b"bytes",
        [1, [2]],
        {"a": {"b": 1}},
        datetime(2026, 1, 1, tzinfo=UTC),
    ],
)
def test_plain_values_come_back_as_they_were(value):
    assert body_of(object).decode_untrusted(encode_any(value)) == value


@pytest.mark.parametrize("value", [2**64, {1: 2}, object(), "\ud800", datetime(2026, 1, 1)])  # noqa: DTZ001
def test_a_value_that_cannot_be_sent_is_a_body_error(value):
    with pytest.raises((BodyError, UsageError)):
        encode_any(value)


def test_what_is_too_large_says_what_to_do():
    with pytest.raises(BodyError, match="send_stream"):
        encode_any(b"x" * (limits.MESSAGE + 1))


def test_rule_45_an_error_about_many_wrong_items_is_short_and_echoes_none_of_them():
    """200,000 bad items made a text of 43 MB that held a password."""
    wrong = codec.encode(["hunter2"] * 60_000)
    with pytest.raises(BodyError) as error:
        body_of(list[int]).decode_untrusted(wrong)
    text = str(error.value)
    assert len(text) < 2000
    assert "hunter2" not in text
    assert "and 59992 more" in text
    assert "http" not in text
    assert error.value.__cause__ is None
    assert error.value.__suppress_context__


def test_a_validators_own_words_are_not_passed_on():
    """They may quote the value."""

    class Careful(BaseModel):
        pin: str

        @field_validator("pin")
        @classmethod
        def check(cls, value: str) -> str:
            raise ValueError(f"{value} is no pin")

    with pytest.raises(BodyError) as error:
        body_of(Careful).decode_untrusted(codec.encode({"pin": "1234"}))
    assert "pin" in str(error.value)
    assert "1234" not in str(error.value)


def test_a_peers_field_name_is_shown_safely():
    class Strict(BaseModel, extra="forbid"):
        pass

    with pytest.raises(BodyError) as error:
        body_of(Strict).decode_untrusted(codec.encode({"\x1b[31m": 1}))
    assert "\x1b" not in str(error.value)


@pytest.mark.parametrize("data", [b"", b"\xc1", b"\x91" * 100, b"\x81\xa1a\x01\xa1a", b"\x80" * 70_000])
def test_rule_45_bytes_that_are_no_body_are_a_body_error_in_bounded_time(data):
    with pytest.raises(BodyError):
        body_of(object).decode_untrusted(data)


def test_bodies_are_built_once_for_each_annotation():
    assert body_of(Order) is body_of(Order)


def test_an_annotation_that_cannot_be_hashed_is_a_body_too():
    """It is built each time."""
    assert body_of(Annotated[int, {"unit": "s"}]).decode_untrusted(codec.encode(1)) == 1
