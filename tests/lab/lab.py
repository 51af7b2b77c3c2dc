"""./dev lab: a lab to play with.

    up        start one in the background, with the daemon in it, and say where things are
    sh NAME   a shell in app, device or cloud
    down      take it down
"""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

from forward import Forwarder
from harness import Lab
from network import NAMES

STATE = pathlib.Path("/run/holdfast-lab.json")
TRIES = 120  # half a second each


def current():
    """What `up` wrote, while its process lives."""
    try:
        state = json.loads(STATE.read_text())
        os.kill(state["pid"], 0)
        return state
    except (FileNotFoundError, ProcessLookupError, json.JSONDecodeError):
        return None


def serve():
    """The background process: the lab, until SIGTERM."""
    try:
        with Lab() as lab:
            lab.start_daemon()
            with Forwarder(lab.socket) as forwarder:
                state = {
                    "pid": os.getpid(),
                    "prefix": lab.network.prefix,
                    "folder": str(lab.folder),
                    "page": forwarder.url,
                    "log": str(lab.log_file),
                    "config": str(lab.config_file),
                }
                new = STATE.with_suffix(".new")
                new.write_text(json.dumps(state))
                new.rename(STATE)
                signal.pause()
    finally:
        STATE.unlink(missing_ok=True)


def up():
    if current():
        sys.exit("lab: there is one already: ./dev lab down")
    STATE.unlink(missing_ok=True)
    log = STATE.with_suffix(".log")
    with open(log, "w") as output:
        process = subprocess.Popen(
            [sys.executable, __file__, "serve"], stdin=subprocess.DEVNULL, stdout=output,
            stderr=output, start_new_session=True)  # fmt: skip
    for _ in range(TRIES):
        time.sleep(0.5)
        state = current()
        if state or process.poll() is not None:
            break
    if not state:
        process.terminate()
        process.wait()
        sys.exit(f"lab: it did not come up\n{log.read_text()}")
    print(f"namespaces  {', '.join(state['prefix'] + '-' + name for name in NAMES)}")
    print(f"page, API   {state['page']}")
    print(f"log         {state['log']}")
    print(f"files       {state['folder']}")
    print("try         ./dev lab sh app, and there: curl http://origin.example/")
    print("            ip -n %s-cloud link set wifi-gw down" % state["prefix"])


def down():
    state = current()
    if not state:
        sys.exit("lab: there is none")
    os.kill(state["pid"], signal.SIGTERM)
    for _ in range(TRIES):
        if not current():
            return
        time.sleep(0.5)
    sys.exit(f"lab: process {state['pid']} does not end")


def shell(where):
    state = current()
    if not state:
        sys.exit("lab: there is none: ./dev lab up")
    if where not in NAMES:
        sys.exit(f"lab: no namespace {where}: {', '.join(NAMES)}")
    name = f"{state['prefix']}-{where}"
    command = os.environ.get("SHELL", "/bin/bash")
    os.execvp("ip", ["ip", "netns", "exec", name, command])


def main():
    match sys.argv[1:]:
        case ["up"]:
            up()
        case ["down"]:
            down()
        case ["serve"]:
            serve()
        case ["sh", where]:
            shell(where)
        case _:
            sys.exit("usage: ./dev lab up | down | sh app|device|cloud")


if __name__ == "__main__":
    main()
