"""An app with IPv4 and IPv6 is one app, whichever family it happens to come by: offline libc
prefers the virtual IPv4 address (RFC 6724: the ULA has another label), online the real IPv6 one.

    app 192.0.2.2, 2001:db8:a::2 ---- device ==wifi, lte== cloud: origin.example
"""

from harness import wait_until


def test_a_request_stored_by_ipv4_is_recognised_when_it_comes_by_ipv6(daemon):
    lab = daemon({"defaults": {"hold": "1s"}})
    lab.cut("wifi", "lte")
    first = lab.curl("app", "http://origin.example/two", "-4", "-d", "x")
    assert first.status == 503
    lab.restore("wifi")
    wait_until("replayed", lambda: lab.origin_log("/two"))
    again = lab.curl("app", "http://origin.example/two", "-6", "-d", "x")
    assert again.status == 200
    assert again.headers.get("holdfast-id", "none") in first.headers["location"]
    assert len(lab.origin_log("/two")) == 1


def test_a_location_leads_an_app_to_its_request_by_either_family(daemon):
    lab = daemon({"defaults": {"hold": "1s"}})
    lab.cut("wifi", "lte")
    location = lab.curl("app", "http://origin.example/six", "-6", "-d", "x").headers["location"]
    assert lab.curl("app", location, "-6").status == 200
    assert lab.curl("app", location, "-4").status == 200
