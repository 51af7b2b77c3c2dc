"""A WebSocket client: says hello, prints what comes. chat.py URL [--stay]"""

import asyncio
import sys

import websockets


async def main():
    async with websockets.connect(sys.argv[1], open_timeout=30) as connection:
        await connection.send("hello")
        print(await connection.recv(), flush=True)
        if "--stay" in sys.argv:
            print(await connection.recv())


try:
    asyncio.run(main())
except websockets.ConnectionClosed as error:
    sys.exit(f"closed: {error.code}")
