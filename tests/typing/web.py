"""One kept link for a web application's life."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, HTTPException, Request

from autolink import Agent, CallError, Credential, TrustAnchor
from autolink.trust import IssuedBy


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    agent = Agent(Credential.load("web"), trust=IssuedBy(TrustAnchor.load("acme.pem")))
    async with agent.keep_link("unix:/run/post.sock", expect="00" * 32) as app.state.post:
        yield


app = FastAPI(lifespan=lifespan)


@app.get("/weight/{grams}")
async def weight(grams: int, request: Request) -> object:
    try:
        return await request.app.state.post.call("weigh", {"grams": grams})
    except CallError as error:
        raise HTTPException(502, error.code) from error
