"""The yardstick, as a process: aiohttp and uvloop, and nothing on top but what HTTP itself would ask for.

``python -m scripts.benches.yardstick BYTES`` answers GET and POST of ``/task`` with that many constant bytes of JSON;
a POST reads its body and decodes it first.
"""

import asyncio
import sys

import msgspec
import uvloop
from aiohttp import web

PATH = "/task"


async def serve(length_bytes: int) -> None:
    body = b'"' + b"x" * (length_bytes - 2) + b'"'

    async def get(_: web.Request) -> web.Response:
        return web.Response(body=body, content_type="application/json")

    async def post(request: web.Request) -> web.Response:
        msgspec.json.decode(await request.read())
        return web.Response(body=body, content_type="application/json")

    app = web.Application()
    app.router.add_get(PATH, get)
    app.router.add_post(PATH, post)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, backlog=1024).start()
    print(f"listening on http://127.0.0.1:{runner.addresses[0][1]}", file=sys.stderr, flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1])))
