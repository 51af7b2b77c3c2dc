"""The path of a request through the lab of network.py: online, over the next link, held, and what
the daemon leaves behind. What is kept while offline is in tests of its own."""

import time

import pytest

from harness import wait_until

FAMILIES = pytest.mark.parametrize("family", ["-4", "-6"])
WHERE = pytest.mark.parametrize("where", ["app", "device"])


@WHERE
@FAMILIES
def test_a_request_by_name_goes_through_the_proxy(daemon, where, family):
    lab = daemon()
    before = lab.count(hook="lookup", reason="tcp-proxy")
    answer = lab.curl(where, f"http://origin.example/path{family}{where}", family)
    assert answer.status == 200, answer
    assert lab.origin_log(f"/path{family}{where}")[-1]["link"] == "wifi"
    assert lab.count(hook="lookup", reason="tcp-proxy") == before + 1


def test_a_large_response_and_a_large_request_are_streamed(daemon):
    lab = daemon()
    size = 20_000_000
    answer = lab.curl("app", f"http://origin.example/big/{size}")
    assert (answer.status, len(answer.body)) == (200, size)
    assert answer.body[:512] == bytes(range(256)) * 2
    path = lab.folder / "upload"
    path.write_bytes(answer.body)
    answer = lab.curl("app", "http://origin.example/echo", "--data-binary", f"@{path}")
    assert (answer.status, answer.body == path.read_bytes()) == (200, True)


def test_chunks_pass_in_both_directions(daemon):
    lab = daemon()
    answer = lab.curl("app", "http://origin.example/chunked")
    assert answer.text == "".join(f"chunk {n}\n" for n in range(5))
    answer = lab.curl("app", "http://origin.example/echo", "-H", "Transfer-Encoding: chunked",
                      "-d", "in chunks")  # fmt: skip
    assert (answer.status, answer.text) == (200, "in chunks")


@FAMILIES
def test_tls_passes_with_the_origins_certificate(daemon, family):
    lab = daemon()
    authority = lab.cloud.folder / "ca.pem"
    answer = lab.curl("app", "https://tls.example/", family, "--cacert", authority)
    assert (answer.status, answer.text) == (200, "the cloud\n"), answer


def test_a_cut_link_moves_the_next_request(daemon):
    lab = daemon()
    assert lab.curl("app", "http://origin.example/before").status == 200
    lab.cut("wifi", wait=False)
    answer = lab.curl("app", "http://origin.example/after-cut")
    assert answer.status == 200 and answer.seconds < 2, answer
    assert lab.origin_log("/after-cut")[-1]["link"] == "lte"
    time.sleep(4)  # longer than a packet waits in the kernel for its neighbour
    lab.restore("wifi")
    assert lab.curl("app", "http://origin.example/back").status == 200
    assert lab.origin_log("/back")[-1]["link"] == "wifi"
    time.sleep(0.5)
    assert len(lab.origin_log("/after-cut")) == 1, "the dead link delivered it later"


def test_a_silent_link_moves_the_next_request(daemon):
    lab = daemon()
    lab.silence("wifi")
    assert lab.curl("app", "http://origin.example/silent").status == 200
    assert lab.origin_log("/silent")[-1]["link"] == "lte"


def test_a_held_request_completes_when_a_link_returns(daemon):
    lab = daemon({"defaults": {"hold": "60s"}})
    lab.cut("wifi", "lte")
    client = lab.curl_start("app", "http://origin.example/held-once", "-d", "wait for me")
    wait_until("held", lambda: lab.requests("?state=held"))
    lab.restore("lte")
    answer = client.wait(30)
    assert answer.status == 200, answer
    assert [e["body"] for e in lab.origin_log("/held-once")] == [b"wait for me"]


def test_nothing_is_repaired_while_nobody_breaks_it(daemon):
    lab = daemon()
    time.sleep(3)
    assert "restored" not in lab.log()


def test_a_stop_leaves_nothing_in_the_kernel(daemon):
    lab = daemon()

    def traces():
        seen = "".join(lab.network.run("device", "ip", family, "rule") for family in ("-4", "-6"))
        seen += lab.network.run("device", "ip", "-d", "link")
        return seen + lab.network.run("device", "tc", "filter", "show", "dev", "wifi0", "egress")

    assert "xdp" in traces() and "hf_guard" in traces() and "7200" in traces()
    assert lab.stop_daemon() == 0
    assert not [word for word in ("xdp", "hf_guard", "7200", "clsact") if word in traces()]
