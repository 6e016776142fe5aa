"""Inside FastAPI, on asyncio: one kept link for the process, used by request handlers. Needs `fastapi` and `httpx`.

It prints::

    GET /quote/tea: 200 {'tea': 250}
    GET /quote/gold: 404 {'detail': 'no gold today'}
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
from fastapi import FastAPI, HTTPException, Request
from httpx import ASGITransport, AsyncClient

from autolink import Call, CallError, Handlers
from autolink.testing import Authority
from autolink.trust import IssuedBy

acme, globex = Authority("acme"), Authority("globex")  # throw-away; for real ones see echo.py
handlers = Handlers()


@handlers.method
async def quote(call: Call, item: str) -> dict[str, int]:
    if item != "tea":
        raise CallError("not_found", f"no {item} today")
    return {item: 250}


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    shop = acme.agent("shop", trust=IssuedBy(globex.anchor), handlers=handlers)  # elsewhere, in real life
    web = globex.agent("web", trust=IssuedBy(acme.anchor))
    async with shop.listening("127.0.0.1:0") as listener, web.keep_link(listener.contact) as app.state.shop:
        yield


app = FastAPI(lifespan=lifespan)


@app.get("/quote/{item}")
async def get_quote(item: str, request: Request) -> object:
    try:
        return await request.app.state.shop.call("quote", item)
    except CallError as error:
        raise HTTPException(404, error.message) from error


async def main() -> None:
    async with lifespan(app), AsyncClient(transport=ASGITransport(app), base_url="http://app") as browser:
        for path in "/quote/tea", "/quote/gold":
            response = await browser.get(path)
            print(f"GET {path}: {response.status_code} {response.json()}")


if __name__ == "__main__":
    anyio.run(main, backend="asyncio")
