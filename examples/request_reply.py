"""Typed calls, and every way in which one can fail: the shop is acme's, the buyer globex's.

(On standard error: the shop's own log of what it answered as `internal`.)

It prints::

    tea costs 2.50
    the shop says not_found: no coffee today
    the shop says invalid_argument
    the shop says internal
    the shop was too slow
    the body cannot be sent
"""

import anyio
from pydantic import BaseModel, PositiveInt

from autolink import BodyError, Call, CallError, Code, Handlers
from autolink.testing import Authority
from autolink.trust import IssuedBy


class Ask(BaseModel):
    item: str
    count: PositiveInt = 1


handlers = Handlers()


@handlers.method
async def quote(call: Call, ask: Ask) -> int:
    if ask.item == "coffee":
        raise CallError(Code.NOT_FOUND, "no coffee today")  # crosses as it is
    if ask.item == "gold":
        await anyio.sleep_forever()  # until the caller's deadline, which came along with the call
    return {"tea": 250}[ask.item] * ask.count  # a KeyError crosses as `internal`, without its text


async def main() -> None:
    acme, globex = Authority("acme"), Authority("globex")  # throw-away; for real ones see echo.py
    shop = acme.agent("shop", trust=IssuedBy(globex.anchor), handlers=handlers)
    buyer = globex.agent("buyer", trust=IssuedBy(acme.anchor))
    async with shop.listening("127.0.0.1:0") as listener, buyer.connect(listener.contact) as link:
        for item in "tea", "coffee", 7, "salt", "gold", object():
            try:
                with anyio.fail_after(0.5):
                    cents = await link.call("quote", {"item": item}, returns=int)
                print(f"{item} costs {cents / 100:.2f}")
            except CallError as error:
                print("the shop says", error if error.code is Code.NOT_FOUND else error.code)
            except TimeoutError:
                print("the shop was too slow")
            except BodyError:
                print("the body cannot be sent")


if __name__ == "__main__":
    anyio.run(main, backend="trio")
