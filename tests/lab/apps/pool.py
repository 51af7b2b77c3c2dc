"""requests with a pool of kept connections: three threads ask for URL twelve times in all, through
one session. With LONG, that is read as it comes before the twelve, and is expected to break.

    pool.py URL [LONG]
"""

import concurrent.futures
import sys

import requests


def ask(session, url):
    with session.get(url) as response:
        return response.status_code, response.text


def read(session, url):
    with session.get(url, stream=True) as response:
        size = 0
        for piece in response.iter_content(4096):
            size += len(piece)
            print("got", size, flush=True)


with requests.Session() as session, concurrent.futures.ThreadPoolExecutor(3) as threads:
    ask(session, sys.argv[1])
    for long in sys.argv[2:]:
        try:
            read(session, long)
            print("whole")
        except requests.RequestException as error:
            print("broke:", type(error).__name__, flush=True)
    answers = list(threads.map(lambda _: ask(session, sys.argv[1]), range(12)))
    print(len(answers), "answers:", *set(answers))
