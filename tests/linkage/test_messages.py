"""The items of each message are defined: nothing unknown, missing or of another type is read."""

from dataclasses import asdict, fields
from typing import Any

import msgpack
import pytest

from schemas.messages import (
    AnswerControl,
    AnswerSubject,
    DeliveryNote,
    Envelope,
    InquiryControl,
    InquirySubject,
    LetterBody,
    LetterControl,
    LetterNote,
    Malformed,
    NetworkVerdict,
    Permit,
    build,
    decode,
    encode,
)

SAMPLES: dict[str, Any] = {
    "str": "text",
    "int": 1,
    "bool": True,
    "bytes": b"bytes",
    "tuple[str, ...]": ("one", "two"),
    "tuple[int, ...]": (1, 2),
    "collections.abc.Mapping[str, typing.Any]": {"total_income": "1"},
}
WRONG: tuple[Any, ...] = ("text", 7, True, b"bytes", ("one",), (1,), (True,), {"a": 1}, None, 1.5)
NOTES = (InquiryControl, AnswerControl, LetterControl, Permit, DeliveryNote, LetterNote)
PARTS = (*NOTES, InquirySubject, AnswerSubject, LetterBody, Envelope, NetworkVerdict)
ITEMS = [pytest.param(kind, f.name, id=f"{kind.__name__}.{f.name}") for kind in PARTS for f in fields(kind)]


def type_of(kind: Any, item: str) -> str:
    annotation = str(next(f.type for f in fields(kind) if f.name == item))
    return annotation.removeprefix("<class '").removesuffix("'>")


def sample(kind: Any) -> Any:
    return kind(**{f.name: SAMPLES[type_of(kind, f.name)] for f in fields(kind)})


def fits(value: Any, good: Any) -> bool:
    """Is this of the type of the good value? Of a tuple, the type of what is in it counts."""
    if isinstance(value, tuple) and isinstance(good, tuple):
        return type(value[0]) is type(good[0])
    return type(value) is type(good)


@pytest.mark.parametrize("kind", NOTES)
@pytest.mark.req("R-046")
def test_a_message_is_read_as_it_was_written(kind: Any) -> None:
    assert decode(kind, encode(sample(kind))) == sample(kind)


@pytest.mark.parametrize(("kind", "item"), ITEMS)
@pytest.mark.req("R-046")
def test_an_item_has_to_be_there_and_of_its_type(kind: Any, item: str) -> None:
    values = asdict(sample(kind))
    assert build(kind, values) == sample(kind)
    missing = {name: value for name, value in values.items() if name != item}
    with pytest.raises(Malformed, match=item):
        build(kind, missing)
    fitting = [value for value in WRONG if fits(value, values[item])]
    assert len(fitting) >= 1
    for wrong in WRONG:
        if not any(wrong is value for value in fitting):
            with pytest.raises(Malformed, match=item):
                build(kind, {**values, item: wrong})


@pytest.mark.parametrize("kind", PARTS)
@pytest.mark.parametrize("name", ["氏名", b"kind", ""])
@pytest.mark.req("R-046")
def test_an_item_that_is_not_defined_is_refused(kind: Any, name: Any) -> None:
    with pytest.raises(Malformed, match=kind.__name__):
        build(kind, {**asdict(sample(kind)), name: "x"})
    with pytest.raises(Malformed, match=kind.__name__):
        build(kind, {name: "x", "other": "x"})


@pytest.mark.parametrize("kind", NOTES)
@pytest.mark.req("R-046", "R-083")
def test_a_message_is_read_only_as_its_own_kind_in_a_known_version(kind: Any) -> None:
    for other in NOTES:
        if other is not kind:
            with pytest.raises(Malformed, match=other.__name__):
                decode(other, encode(sample(kind)))
    values = msgpack.unpackb(encode(sample(kind)))
    for changes in ({"version": 1}, {"version": None}, {"message": "Notice"}):
        with pytest.raises(Malformed, match=kind.__name__):
            decode(kind, msgpack.packb({**values, **changes}))
    for data in (b"", b"\xc1", msgpack.packb([1]), encode(sample(kind))[:-1], encode(sample(kind)) + b"\0"):
        with pytest.raises(Malformed):
            decode(kind, data)
