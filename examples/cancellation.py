"""What stops a far handler: its caller's deadline, its caller's cancellation, the end of its caller's link.

It prints::

    the caller ran out of time; wash: started stopped
    wash: started
    the caller changed its mind; wash: stopped
    wash: started
    the caller hung up; wash: stopped
"""

import anyio

from autolink import Call, Handlers, Link, LinkLost
from autolink.testing import Authority
from autolink.trust import IssuedBy

handlers = Handlers()
tell, told = anyio.create_memory_object_stream[str](2)


@handlers.method
async def wash(call: Call, body: None) -> None:
    tell.send_nowait("started")
    try:
        await anyio.sleep_forever()
    finally:  # plain structured concurrency: the handler's scope was cancelled
        tell.send_nowait("stopped")


async def hold_on(link: Link) -> None:
    try:
        await link.call("wash")
    except LinkLost:
        print("the caller hung up; wash:", await told.receive())


async def main() -> None:
    acme, globex = Authority("acme"), Authority("globex")  # throw-away; for real ones see echo.py
    laundry = acme.agent("laundry", trust=IssuedBy(globex.anchor), handlers=handlers)
    guest = globex.agent("guest", trust=IssuedBy(acme.anchor))
    async with tell, told, laundry.listening("127.0.0.1:0") as listener:
        async with guest.connect(listener.contact) as link:
            with anyio.move_on_after(0.2):  # what remains of it travels along
                await link.call("wash")
            print("the caller ran out of time; wash:", await told.receive(), await told.receive())
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(link.call, "wash")
                print("wash:", await told.receive())
                tasks.cancel_scope.cancel()
            print("the caller changed its mind; wash:", await told.receive())
        async with anyio.create_task_group() as tasks, guest.connect(listener.contact) as link:
            tasks.start_soon(hold_on, link)
            print("wash:", await told.receive())


if __name__ == "__main__":
    anyio.run(main, backend="trio")
