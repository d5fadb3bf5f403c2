"""Waiting for the end of inquiries at the business door: whoever looks for all may leave at any time."""

from typing import Any

import pytest
import trio
import trio.testing

from adapters.business.inquiry_door import InquiryDoor
from adapters.platform.staffing import Caller
from schemas.errors import Refusal
from tests.house import House, order

LONG = 60.0


async def present(_: Caller) -> Refusal | None:
    return None


async def each(*_: Any) -> list[tuple[str, str]]:
    raise AssertionError("nothing is ordered at this door")


@pytest.mark.req("R-085", "R-090")
async def test_who_waits_is_told_though_others_give_up(house: House) -> None:
    """The first one who waits looks for all of them; a file is more than is looked for at a time."""
    platform = house.asking.platform
    file = [f"f-{number}" for number in range(70)]
    await platform.inquire_many([order(name, number % 3) for number, name in enumerate(file)])
    await platform.inquire_many([order("q-1", 1)])
    routes = InquiryDoor(platform, present).routes(each)
    told: dict[str, Any] = {}

    async def wait(name: str, path: str, requests: list[str], seconds: float) -> None:
        told[name] = await routes[path]({"requests": requests, "wait": seconds})

    with trio.fail_after(LONG / 2):
        async with trio.open_nursery() as nursery:
            async with trio.open_nursery() as hasty:
                hasty.start_soon(wait, "first", "/v1/results", ["q-1"], 0.05)
                await trio.testing.wait_all_tasks_blocked()
                nursery.start_soon(wait, "one", "/v1/results", ["q-1"], LONG)
                nursery.start_soon(wait, "file", "/v1/inquiries/open", [*file, "never"], LONG)
                hasty.start_soon(wait, "last", "/v1/inquiries/open", file, 0.05)
            assert ([result.state for result in told["first"]], told["last"]) == (["asked"], 70)
            await house.post()
    assert [result.state for result in told["one"]] == ["answered"]
    assert told["file"] == 0
