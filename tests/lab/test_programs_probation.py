"""A program on probation is taken back by itself: in time, when it does harm, and when the daemon
did not live to see it confirmed.

    app ---> app0 (on probation: watched by the kernel, by the second) ---> device ---> cloud
    other daemon's life: kill -9, start: the program before
"""

import collections
import contextlib
import json
import os
import pathlib
import time

import pytest

from harness import wait_until
from kernelside import python, python_start, told
from network import NGINX, ORIGIN
from uploads import PASS, Key, built, module_uploads, uploads  # noqa: F401

APP_API = "192.0.2.1:7081"
SAY = """
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for n in range(int(sys.argv[3])):
    s.sendto(b"%08d" % n, (sys.argv[1], int(sys.argv[2])))
tell("said")
"""
KNOCK = """
socks = []
for n in range(int(sys.argv[3])):
    s = socket.socket()
    s.setblocking(False)
    try: s.connect((sys.argv[1], int(sys.argv[2])))
    except BlockingIOError: pass
    socks.append(s)
tell("knocked")
time.sleep(1)
"""
DROP_APP = f"if (destination_of(ctx) == 0xcb007109) return XDP_DROP; {PASS}"  # the origin
ABORT_ON = f"if (port_of(ctx) == 4242) return XDP_ABORTED; {PASS}"


def say(lab, port, count=1):
    assert python(lab, "app", SAY, ORIGIN[0], port, count) == "said"


def knock(lab, count=200):
    assert python(lab, "app", KNOCK, ORIGIN[0], 80, count) == "knocked"


def works(lab):
    answer = lab.curl("app", f"http://{ORIGIN[0]}/works", "--max-time", "5")
    assert answer.status == 200, answer


def test_a_program_that_is_not_confirmed_in_time_is_rolled_back(uploads):
    before = uploads.upload(name="before")
    uploads.serve(before)
    ident = uploads.upload(name="late")
    uploads.activate(ident, confirm_within="1s")
    uploads.wait_for(before)
    assert "rolled back: it was not confirmed within 1s" in uploads.said(ident)
    status, problem = uploads.command("confirm")
    assert (status, problem["check"]) == (409, "state")
    works(uploads.lab)


def test_a_program_that_aborts_under_real_traffic_is_rolled_back(uploads):
    ident = uploads.upload(ABORT_ON, name="aborts")
    uploads.activate(ident)
    works(uploads.lab)
    assert uploads.current() == (ident, "on_probation")
    say(uploads.lab, 4242)
    uploads.wait_for("builtin")
    assert "it aborted (XDP_ABORTED) 1 packets" in uploads.said(ident)


def test_a_program_that_drops_an_apps_traffic_is_rolled_back(uploads):
    lab = uploads.lab
    ident = uploads.upload(DROP_APP, name="drops")
    uploads.activate(ident)
    assert lab.curl("app", f"http://{ORIGIN[0]}/cut", "--max-time", "0.5").status == 0
    assert uploads.current() == (ident, "on_probation")
    knock(lab)
    uploads.wait_for("builtin")
    assert "drops jumped" in uploads.said(ident)
    works(lab)


def test_drops_that_are_expected_roll_nothing_back(uploads):
    lab = uploads.lab
    ident = uploads.upload(DROP_APP, name="drops")
    uploads.activate(ident, expect_drops=True)
    knock(lab)
    assert uploads.current() == (ident, "on_probation")
    uploads.good("confirm")
    # A program that drops as much is no jump after it.
    again = uploads.upload(DROP_APP, name="drops", version="1.0.1")
    uploads.activate(again)
    knock(lab)
    assert uploads.current() == (again, "on_probation")


def test_a_program_that_was_confirmed_is_watched_no_more(uploads):
    uploads.serve(uploads.upload(ABORT_ON, name="aborts"))
    ident = uploads.current()[0]
    say(uploads.lab, 4242, 10)
    works(uploads.lab)
    assert uploads.current() == (ident, "in_service")


@pytest.mark.parametrize("first", [False, True], ids=["after the built-in", "after another"])
def test_a_probation_that_the_daemon_does_not_outlive_ends_in_rollback(uploads, first):
    lab = uploads.lab
    before = "builtin"
    if first:
        before = uploads.upload(name="before")
        uploads.serve(before)
    ident = uploads.upload(name="unlucky")
    uploads.activate(ident, confirm_within="1h")
    lab.kill_daemon()
    lab.start_daemon(uploads.started_with)
    assert uploads.current() == (before, "in_service")
    assert "rolled back: the daemon ended while it was on probation" in uploads.said(ident)
    works(lab)


def test_a_program_whose_key_is_trusted_no_more_is_not_put_in_service_again(uploads):
    lab = uploads.lab
    lost = Key(lab.folder, "lost")
    kept = uploads.upload(name="kept")
    uploads.serve(kept)
    lab.stop_daemon()
    both = uploads.started_with | {
        "programs": {"trusted_keys": [str(uploads.key.public), str(lost.public)]}
    }
    lab.start_daemon(both)
    status, program = uploads.post(uploads.compile(name="revoked"), key=lost)
    assert status == 201 and program["signed_by"] == "lost.pem"
    uploads.serve(program["id"])
    assert lab.stop_daemon() == 0
    lab.start_daemon(uploads.started_with)
    assert uploads.current() == (kept, "in_service")
    said = uploads.said(program["id"])
    assert "not put in service at the start of the daemon: no key" in said
    works(lab)


def test_a_key_that_cannot_be_used_is_told_and_so_are_unsigned_programs(uploads):
    lab = uploads.lab
    lab.stop_daemon()
    missing, wrong = lab.folder / "missing.pem", lab.folder / "wrong.pem"
    wrong.write_text("no key\n")
    lab.start_daemon(uploads.started_with | {
        "programs": {"trusted_keys": [str(missing), str(wrong)], "allow_unsigned": True}})  # fmt: skip
    try:
        warnings = "\n".join(lab.get("/v1/status")["warnings"])
        assert f"{missing} cannot be read" in warnings and "allow_unsigned" in warnings
        assert f"{wrong} is no public key" in warnings
        assert f"programs.trusted_keys: {missing} cannot be read" in lab.log()
        status, program = uploads.post(uploads.compile(name="bare"), key=False)
        assert status == 201 and not program["signed"] and program["signed_by"] is None
        uploads.serve(program["id"])
        # With the key there again a signature counts, without a restart.
        missing.write_bytes(uploads.key.public.read_bytes())
        status, program = uploads.post(uploads.compile(name="bare"))
        assert status == 200 and program["signed_by"] == "missing.pem"
        assert str(missing) not in "\n".join(lab.get("/v1/status")["warnings"])
    finally:
        lab.stop_daemon()
        lab.start_daemon(uploads.started_with)
    assert lab.get("/v1/status")["warnings"] == []


# --- the examples ---


def test_lockdown_cuts_an_app_off_from_other_hosts_until_it_is_rolled_back(uploads):
    lab = uploads.lab
    ident = uploads.upload(elf=built(lab, "examples", "lockdown"))
    other = f"http://{NGINX[0]}/"
    assert lab.curl("app", other).status
    uploads.activate(ident, expect_drops=True)
    assert lab.curl("app", other, "--max-time", "1").status == 0
    works(lab)  # the one host that it allows
    assert lab.dig("app", "origin.example") == [ORIGIN[0]]
    uploads.good("rollback")
    assert lab.curl("app", other).status


def test_observe_passes_everything_and_counts_it(uploads):
    lab = uploads.lab
    ident = uploads.upload(elf=built(lab, "examples", "observe"))
    uploads.serve(ident)
    works(lab)
    assert lab.dig("app", "origin.example") == [ORIGIN[0]]


def test_dns_port_moves_questions_on_lo_to_a_server_at_port_54(uploads):
    lab = uploads.lab
    server = lab.spawn(
        lab.network.enter("device")
        + ["dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts",
           "--bind-interfaces", "--listen-address=127.0.0.1", "--port=54", "--pid-file=",
           "--address=/moved.example/192.0.2.77"])  # fmt: skip
    try:
        def asked(port):
            return lab.dig("device", "moved.example", "A", "-p", str(port), server="127.0.0.1")

        wait_until("dnsmasq answers", lambda: asked(54) == ["192.0.2.77"])
        assert asked(53) != ["192.0.2.77"]
        uploads.activate(uploads.upload(elf=built(lab, "examples", "dns-port")))
        assert asked(53) == ["192.0.2.77"]
        uploads.good("rollback")
        assert asked(53) != ["192.0.2.77"]
    finally:
        lab.end(server)


# --- the one who commands ---

CALLER_IS_CUT_LATER = """
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, __u64);
	__uint(max_entries, 1);
} seen SEC(".maps");
"""
CUT_AFTER_2_SECONDS = """
	__u32 zero = 0;
	__u64 now = bpf_ktime_get_ns();
	__u64 *first = port_of(ctx) == 7081 ? bpf_map_lookup_elem(&seen, &zero) : 0;

	if (first && !*first)
		*first = now;
	return first && now - *first > 2000000000ull ? XDP_DROP : XDP_PASS;
"""
CUT = "if (port_of(ctx) == %d) return XDP_DROP; return XDP_PASS;"


@pytest.fixture
def remote(uploads):
    """The API for a person behind app0, with the token."""
    lab = uploads.lab
    lab.stop_daemon()
    token = lab.folder / "token"
    token.write_text("secret\n")
    listen = ["127.0.0.1:7080", f"unix:{lab.socket}", APP_API, "0.0.0.0:7082"]
    lab.start_daemon(uploads.started_with | {"api": {"listen": listen, "token_file": str(token)}})

    def call(method, path, *arguments):
        return lab.curl("app", f"http://{APP_API}/v1/{path}", "-X", method, "--max-time", "3",
                        "-H", "Authorization: Bearer secret", *arguments)  # fmt: skip

    yield call
    lab.stop_daemon()
    lab.start_daemon(uploads.started_with)


def post_from_afar(uploads, remote, elf):
    path = uploads.lab.folder / "from-afar.o"
    path.write_bytes(elf)
    return remote("POST", "programs", "--data-binary", f"@{path}",
                  "-H", "Content-Type: application/octet-stream",
                  "-H", f"Holdfast-Signature: {uploads.key.sign(elf)}")  # fmt: skip


@pytest.mark.parametrize("port", [7081, 7082], ids=["the caller's", "of another listener"])
def test_a_program_that_would_cut_the_api_off_is_refused(uploads, remote, port):
    answer = post_from_afar(uploads, remote, uploads.compile(CUT % port, name="cuts"))
    assert answer.status == 422 and answer.json()["check"] == "corpus", answer
    assert str(port) in answer.json()["detail"], answer


def test_a_program_that_cuts_its_caller_off_later_comes_back_by_itself(uploads, remote):
    elf = uploads.compile(CUT_AFTER_2_SECONDS, name="cuts-later", head=CALLER_IS_CUT_LATER)
    answer = post_from_afar(uploads, remote, elf)
    assert answer.status == 201, answer
    ident = answer.json()["id"]
    answer = remote("POST", f"programs/{ident}/activate", "-H", "Content-Type: application/json",
                    "-d", '{"confirm_within": "5s"}')  # fmt: skip
    assert answer.status == 200, answer
    wait_until("cut off", lambda: remote("GET", "status", "--max-time", "0.5").status == 0)
    assert remote("POST", "programs/confirm", "--max-time", "0.5").status == 0
    wait_until("back", lambda: remote("GET", "status", "--max-time", "0.5").status == 200)
    program = remote("GET", "status").json()["program"]
    assert (program["id"], program["state"]) == ("builtin", "in_service")
    history = remote("GET", f"programs/{ident}").json()["events"]
    assert history[-1]["what"] == "rolled back: it was not confirmed within 5s"


# --- under load ---

STREAM = """
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.connect((sys.argv[1], 4243))
stop, n = False, 0
def on_term(*_):
    global stop
    stop = True
signal.signal(signal.SIGTERM, on_term)
tell(["ready"])
while not stop:
    s.send(b"%08d" % n)
    n += 1
    time.sleep(0.0005)
tell(n)
"""
COUNT = """
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.setsockopt(socket.SOL_SOCKET, 33, 8 << 20)  # SO_RCVBUFFORCE: no loss but on the way
s.bind((sys.argv[1], 4243))
s.settimeout(0.2)
stop, seen = False, 0
def on_term(*_):
    global stop
    stop = True
signal.signal(signal.SIGTERM, on_term)
tell(["ready"])
while True:
    try:
        s.recv(100)
        seen += 1
    except TimeoutError:
        if stop:
            break
tell(seen)
"""
LOAD = """
import http.client
stop, good, bad = False, 0, []
def on_term(*_):
    global stop
    stop = True
signal.signal(signal.SIGTERM, on_term)
tell(["ready"])
connection = http.client.HTTPConnection(sys.argv[1], timeout=10)
while not stop:
    try:
        if good % 10 == 0:
            connection.close()
        connection.request("GET", "/load")
        response = connection.getresponse()
        response.read()
        if response.status == 200: good += 1
        else: bad.append(response.status)
    except OSError as error:
        bad.append(repr(error))
        connection.close()
tell([good, bad])
"""


def held(lab):
    """What the daemon has open, by kind: sockets are its connections and left out."""
    folder = pathlib.Path(f"/proc/{lab.daemon.pid}/fd")
    kinds = collections.Counter()
    for descriptor in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):
            kinds[os.readlink(descriptor).split(":[")[0]] += 1
    return {kind: n for kind, n in kinds.items() if kind != "socket"}


def loaded(lab, *names):
    """Programs of these names in the kernel."""
    programs = json.loads(lab.network.run("device", "bpftool", "-j", "prog", "list"))
    return sorted(program["name"] for program in programs if program.get("name") in names)


def finish(lab, client):
    client.process.terminate()
    assert client.wait().rc == 0
    return told(client)[-1]


def test_a_hundred_swaps_under_load_lose_nothing_and_leak_nothing(uploads):
    lab = uploads.lab
    functions = [f"swap_{side}_{lab.daemon.pid}"[:15] for side in "ab"]
    idents = [uploads.upload(name=f"swap-{side}", function=function)
              for side, function in zip("ab", functions)]  # fmt: skip
    for ident in idents:  # both were there once
        uploads.serve(ident)
    before = held(lab)
    assert before["anon_inode:bpf-prog"] and before["anon_inode:bpf-map"], before
    count = python_start(lab, "device", COUNT, "192.0.2.1")
    stream = python_start(lab, "app", STREAM, "192.0.2.1")
    loads = [python_start(lab, "app", LOAD, ORIGIN[0]) for _ in range(2)]
    for n in range(50):
        for ident in idents:
            uploads.serve(ident)
    results = [finish(lab, load) for load in loads]
    sent = finish(lab, stream)
    received = finish(lab, count)
    assert all(bad == [] and good > 50 for good, bad in results), results
    assert sent > 1000 and received == sent, (sent, received)
    with contextlib.suppress(AssertionError):
        wait_until("nothing is left over", lambda: held(lab) == before, timeout=5)
    assert held(lab) == before
    # The kernel frees a program after a grace period.
    wait_until("one program is loaded", lambda: loaded(lab, *functions) == [functions[1]])


# --- crashes ---

STORM = """
import http.client, random
class Connection(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(sys.argv[1])
def post(path):
    connection = Connection("localhost")
    connection.request("POST", "/v1/programs/" + path)
    status = connection.getresponse().status
    if status == 503: raise ConnectionError("the daemon is stopping")
    assert status == 200, status
tell(["ready"])
try:
    while True:
        for ident in sys.argv[2:]:
            tell(["activating", ident])
            post(ident + "/activate")
            tell(["confirming", ident])
            post("confirm")
            tell(["confirmed", ident])
except (OSError, http.client.HTTPException):
    pass
"""


@pytest.mark.parametrize("end", ["killed", "stopped"])
def test_whenever_the_daemon_ends_it_begins_with_what_was_confirmed(uploads, end):
    lab = uploads.lab
    idents = [uploads.upload(name=f"storm-{side}") for side in "ab"]
    uploads.serve(idents[0])
    for n in range(8):
        storm = python_start(lab, "device", STORM, lab.socket, *idents[::-1])
        # Somewhere in the first swaps: each time a little later.
        wait_until("swapping", lambda: len(told(storm)) > n % 4)
        time.sleep(0.004 * n)
        if end == "killed":
            lab.kill_daemon()
        else:
            assert lab.stop_daemon() == 0, lab.log()
        assert storm.wait().rc == 0
        steps = [["confirmed", idents[0]], *told(storm)]
        confirmed = [ident for what, ident in steps if what == "confirmed"][-1]
        # A confirmation that was asked for and not answered may have come to the disk.
        asked = steps[-1][1] if steps[-1][0] == "confirming" else confirmed
        lab.start_daemon(uploads.started_with)
        ident, state = uploads.current()
        assert state == "in_service" and ident in (confirmed, asked), (steps[-3:], ident)
        if ident != idents[0]:
            uploads.serve(idents[0])
    works(lab)
