"""Inside FastAPI, on asyncio: one kept link for all requests, and an HTTP status for each way in which a call ends.

Needs ``pip install fastapi httpx``, which the extra `test` brings. It prints::

    <Response [200 OK]> <Response [404 Not Found]>
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
from fastapi import FastAPI, HTTPException, Request
from httpx import ASGITransport, AsyncClient

from autolink import Call, CallError, Code, DeliveryUnknown, Refused
from autolink.testing import Authority
from autolink.trust import IssuedBy

acme, globex = Authority("acme"), Authority("globex")  # throw-away; for real ones see echo.py
shop = acme.agent("shop", trust=IssuedBy(globex.anchor))  # elsewhere, in real life
web = globex.agent("web", trust=IssuedBy(acme.anchor))


@shop.method
async def quote(call: Call, item: str) -> dict[str, int]:
    if item != "tea":
        raise CallError("not_found", f"no {item} today")
    return {item: 250}


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with shop.listening("127.0.0.1:0") as listener, web.keep_link(listener.contact) as app.state.shop:
        yield


app = FastAPI(lifespan=lifespan)


@app.get("/quote/{item}")
async def get_quote(item: str, request: Request) -> object:
    try:
        with anyio.fail_after(5):  # for the link to be there and for the far handler, which is told
            return await request.app.state.shop.call("quote", item)
    except TimeoutError:
        raise HTTPException(504, "the shop does not answer") from None
    except (DeliveryUnknown, Refused) as error:
        raise HTTPException(503, "no link to the shop") from error
    except CallError as error:
        raise HTTPException(404 if error.code is Code.NOT_FOUND else 502, error.message) from error


async def main() -> None:
    async with lifespan(app), AsyncClient(transport=ASGITransport(app), base_url="http://app") as browser:
        print(*[await browser.get(f"/quote/{item}") for item in ("tea", "gold")])


if __name__ == "__main__":
    anyio.run(main, backend="asyncio")
