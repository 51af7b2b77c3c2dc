"""A WebSocket server that says back what it hears: chat_server.py PORT"""

import asyncio
import sys

import websockets


async def echo(connection):
    async for message in connection:
        await connection.send(message)


async def main():
    async with websockets.serve(echo, None, int(sys.argv[1])):
        await asyncio.Future()


asyncio.run(main())
