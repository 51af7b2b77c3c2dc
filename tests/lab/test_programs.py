"""A program is uploaded, checked, put in service on probation, confirmed or rolled back.

    person --POST /v1/programs--> holdfastd --XDP link update--> app0, lo
    app ------------------------------------> app0 --> (the program that decides now)
"""

import json

import pytest

from harness import wait_until
from network import ORIGIN
from test_api import fits
from uploads import OTHER_ABI, PASS, Key, module_uploads, uploads  # noqa: F401

PINNED_OTHERWISE = """
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__type(key, __u32);
	__type(value, __u64);
	__uint(max_entries, 7);
	__uint(pinning, LIBBPF_PIN_BY_NAME);
} interfaces SEC(".maps");
"""
GOLDEN = """
HF_GOLDEN = {{.name = "an ARP request is dropped", .role = HF_ROLE_APP, .action = XDP_DROP,
	      .len = 60, .in = {[0 ... 5] = 0xff, [6] = 2, [12] = 8, [13] = 6}}};
"""
READS_PAST_THE_END = "return *((unsigned char *)(long)ctx->data + 20) ? XDP_PASS : XDP_DROP;"
COUNTED = """
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__type(key, __u32);
	__type(value, __u64);
	__uint(max_entries, 1);
} seen SEC(".maps");
"""


def is_refused(answer, status, check, *words):
    assert answer[0] == status, answer
    fits("POST", "/v1/programs", *answer)
    problem = answer[1]
    assert problem["check"] == check and problem["title"], problem
    for word in words:
        assert word in problem["detail"], problem
    return problem


def works(lab):
    answer = lab.curl("app", f"http://{ORIGIN[0]}/works", "--max-time", "5")
    assert answer.status == 200, answer


# --- the whole way ---


def test_a_signed_program_is_uploaded_activated_confirmed_and_survives_a_restart(uploads):
    lab = uploads.lab
    ident = uploads.upload(name="mine", version="1.2.3")
    assert uploads.current() == ("builtin", "in_service")
    program = uploads.activate(ident, confirm_within="30s")
    assert 20 < program["probation_left"] <= 30
    assert 0 < lab.get("/v1/status")["program"]["probation_left"] <= 30
    works(lab)
    assert uploads.good("confirm")["state"] == "in_service"
    assert lab.stop_daemon() == 0
    lab.start_daemon(uploads.started_with)
    assert uploads.current() == (ident, "in_service")
    works(lab)
    program = uploads.get(ident)
    fits("GET", "/v1/programs/{id}", 200, program)
    fits("GET", "/v1/status", 200, lab.get("/v1/status"))
    assert (program["name"], program["version"]) == ("mine", "1.2.3")
    assert program["signed_by"] == "fleet.pem" and program["confirmed"]
    history = [event["what"] for event in program["events"]]
    assert history == ["uploaded, signed by fleet.pem", "on probation for 30s",
                       "confirmed, in service"]  # fmt: skip


def test_an_upload_is_answered_with_201_and_its_place_and_again_with_200(uploads):
    elf = uploads.compile(name="twice")
    fields = ["-X", "POST", "--data-binary", "@-", "-H", "Content-Type: application/octet-stream",
              "-H", f"Holdfast-Signature: {uploads.key.sign(elf)}"]  # fmt: skip
    path = uploads.lab.folder / "twice.o"
    path.write_bytes(elf)
    fields[3] = f"@{path}"
    url = "http://127.0.0.1:7080/v1/programs"
    first = uploads.lab.curl("device", url, *fields)
    assert first.status == 201, first
    program = first.json()
    assert first.headers["location"] == f"{url}/{program['id']}"
    assert program["state"] == "available" and program["sha256"].startswith(program["id"])
    again = uploads.lab.curl("device", url, *fields)
    assert again.status == 200 and again.json()["id"] == program["id"]
    assert uploads.lab.curl("device", first.headers["location"]).json() == program


def test_activation_without_a_body_takes_the_configured_time(uploads):
    ident = uploads.upload()
    answer = uploads.lab.curl("device", f"http://127.0.0.1:7080/v1/programs/{ident}/activate",
                              "-X", "POST")  # fmt: skip
    assert answer.status == 200, answer
    assert 30 < answer.json()["probation_left"] <= 60
    assert uploads.current() == (ident, "on_probation")


@pytest.mark.parametrize(
    "body, field",
    [({"confirm_within": 30}, "confirm_within"), ({"confirm_within": "0s"}, "confirm_within"),
     ({"confirm_within": "2d"}, "confirm_within"), ({"expect_drops": "yes"}, "expect_drops"),
     ({"colour": "red"}, "colour")],
)  # fmt: skip
def test_a_wrong_activation_is_refused_with_its_key(uploads, body, field):
    ident = uploads.upload()
    status, problem = uploads.command(f"{ident}/activate", body)
    assert (status, problem["field"]) == (400, field)
    assert uploads.current() == ("builtin", "in_service")


def test_a_rollback_returns_to_the_one_confirmed_before_and_at_last_to_the_built_in(uploads):
    first, second = (uploads.upload(name=name) for name in ("first", "second"))
    uploads.serve(first)
    uploads.serve(second)
    third = uploads.upload(name="third")
    uploads.activate(third)
    assert [p["id"] for p in uploads.list() if p["previous"]] == [second]
    assert uploads.good("rollback")["id"] == second
    assert "rolled back: it was asked for" in uploads.said(third)
    assert [p["id"] for p in uploads.list() if p["previous"]] == [first]
    assert uploads.good("rollback")["id"] == first
    assert uploads.good("rollback")["id"] == "builtin"
    is_refused(uploads.command("rollback"), 409, "state", "built-in")
    works(uploads.lab)


def test_what_is_in_service_survives_a_rollback_and_a_restart(uploads):
    lab = uploads.lab
    first, second = (uploads.upload(name=name) for name in ("first", "second"))
    uploads.serve(first)
    uploads.serve(second)
    uploads.good("rollback")
    assert lab.stop_daemon() == 0
    lab.start_daemon(uploads.started_with)
    assert uploads.current() == (first, "in_service")
    uploads.good("builtin/activate")
    lab.kill_daemon()
    lab.start_daemon(uploads.started_with)
    assert uploads.current() == ("builtin", "in_service")


def test_the_list_begins_with_the_built_in_program_then_the_newest(uploads):
    idents = [uploads.upload(name=f"list-{n}") for n in range(3)]
    listed = uploads.list()
    assert [program["id"] for program in listed] == ["builtin", *idents[::-1]]
    assert listed[0]["builtin"] and listed[0]["state"] == "in_service"


def test_commands_in_the_wrong_state_are_refused(uploads):
    first, second = (uploads.upload(name=name) for name in ("first", "second"))
    is_refused(uploads.command("confirm"), 409, "state", "no program is on probation")
    is_refused(uploads.command("builtin/activate"), 409, "state", "in service already")
    assert uploads.command("none/activate")[0] == 404
    uploads.activate(first)
    is_refused(uploads.command(f"{first}/activate"), 409, "state", "on probation already")
    is_refused(uploads.command(f"{second}/activate"), 409, "state", "another program")
    is_refused(uploads.command("builtin/activate"), 409, "state", "another program")
    uploads.good("confirm")
    is_refused(uploads.command(f"{first}/activate"), 409, "state", "in service already")


def test_what_is_needed_cannot_be_deleted(uploads):
    first, second, third = (uploads.upload(name=name) for name in ("first", "second", "third"))

    def delete(ident):
        return uploads.lab.api("DELETE", f"/v1/programs/{ident}")

    is_refused(delete("builtin"), 409, "state")
    uploads.serve(first)
    is_refused(delete(first), 409, "state", "it decides")
    uploads.activate(second)
    is_refused(delete(second), 409, "state", "it decides")
    is_refused(delete(first), 409, "state", "rollback")
    uploads.good("confirm")
    is_refused(delete(first), 409, "state", "rollback")
    uploads.serve(third)
    assert delete(first)[0] == 204
    assert delete(first)[0] == 404
    assert uploads.good("rollback")["id"] == second
    assert uploads.good("rollback")["id"] == "builtin"


def test_events_tell_of_each_step(uploads):
    lab = uploads.lab
    reader = lab.start("device", "curl", "-sN", "--max-time", "30",
                       "http://127.0.0.1:7080/v1/events")  # fmt: skip
    wait_until("connected", lambda: reader.out.exists() and "retry" in reader.out.read_text())
    ident = uploads.upload(name="told", version="3.2.1")
    uploads.activate(ident, confirm_within="9s")
    uploads.good("confirm")
    uploads.good("rollback")

    def events():
        found = []
        for event in reader.out.read_text().split("\n\n"):
            lines = dict(line.split(": ", 1) for line in event.splitlines() if ": " in line)
            if lines.get("event") == "program":
                found.append(json.loads(lines["data"]))
        return [event["what"] for event in found if event["subject"] == ident]

    wanted = ["uploaded, signed by fleet.pem", "on probation for 9s", "confirmed, in service",
              "rolled back: it was asked for"]  # fmt: skip
    wait_until("told", lambda: events() == [f"told 3.2.1: {what}" for what in wanted])
    reader.kill()


# --- what is refused ---


def test_a_wrong_signature_is_refused(uploads):
    elf = uploads.compile()
    other = Key(uploads.lab.folder, "other")
    is_refused(uploads.post(elf, key=other), 403, "signature")
    wrong = {"Holdfast-Signature": uploads.key.sign(elf + b"\0")}
    is_refused(uploads.post(elf, key=False, headers=wrong), 403, "signature")
    garbage = {"Holdfast-Signature": "garbage"}
    is_refused(uploads.post(elf, key=False, headers=garbage), 403, "signature", "base64")
    assert len(uploads.list()) == 1


def test_an_unsigned_program_is_refused(uploads):
    is_refused(uploads.post(uploads.compile(), key=False), 403, "unsigned", "allow_unsigned")


def test_an_older_version_than_was_confirmed_is_refused_even_after_that_was_deleted(uploads):
    uploads.serve(uploads.upload(name="aging", version="1.10.0"))
    older = uploads.compile(name="aging", version="1.9.9")
    is_refused(uploads.post(older), 409, "version", "1.9.9", "1.10.0")
    uploads.reset()
    is_refused(uploads.post(older), 409, "version", "1.9.9", "1.10.0")
    assert uploads.post(uploads.compile(name="aging", version="1.10.1"))[0] == 201
    assert uploads.post(uploads.compile(name="other", version="1.9.9"))[0] == 201


def test_what_is_no_elf_object_is_refused(uploads):
    for elf in (b"", b"no object", b"\x7fELF" + b"\0" * 500):
        assert is_refused(uploads.post(elf), 422, "elf")


def test_an_object_without_metadata_is_refused(uploads):
    bare = uploads.compile(metadata='char LICENSE[] SEC("license") = "GPL";')
    is_refused(uploads.post(bare), 422, "metadata")
    is_refused(uploads.post(uploads.compile(version="1.0")), 422, "metadata")


def test_an_unknown_abi_is_refused(uploads):
    is_refused(uploads.post(uploads.compile(metadata=OTHER_ABI)), 422, "abi")


def test_a_program_of_another_type_is_refused(uploads):
    elf = uploads.compile("return 0;", section="socket", context="struct __sk_buff")
    is_refused(uploads.post(elf), 422, "type")


def test_maps_that_do_not_fit_are_refused(uploads):
    elf = uploads.compile("__u32 zero = 0; bpf_map_lookup_elem(&interfaces, &zero); return 2;",
                          head=PINNED_OTHERWISE)  # fmt: skip
    is_refused(uploads.post(elf), 422, "maps", "interfaces")


def test_what_the_verifier_refuses_is_refused_with_its_log(uploads):
    problem = is_refused(uploads.post(uploads.compile(READS_PAST_THE_END)), 422, "verifier")
    assert "invalid access to packet" in problem["log"]


def test_a_program_that_cuts_what_the_device_needs_off_is_refused_with_the_packet(uploads):
    problem = is_refused(uploads.post(uploads.compile("return XDP_DROP;")), 422, "corpus")
    assert "ARP" in problem["detail"], problem
    is_refused(uploads.post(uploads.compile("return XDP_ABORTED;")), 422, "corpus")


def test_a_golden_packet_that_comes_out_otherwise_is_named(uploads):
    is_refused(uploads.post(uploads.compile(head=GOLDEN)), 422, "golden",
               "an ARP request is dropped")  # fmt: skip


def test_too_large_a_file_is_refused(uploads):
    is_refused(uploads.post(b"\x7fELF" + b"\0" * (1 << 20)), 413, "size")


def test_another_content_type_is_refused(uploads):
    answer = uploads.post(uploads.compile(), headers={"Content-Type": "application/json"})
    assert answer[0] == 415 and "octet-stream" in answer[1]["detail"]


def test_at_most_16_programs_are_kept(uploads):
    for n in range(16):
        uploads.upload(name=f"many-{n}")
    is_refused(uploads.post(uploads.compile(name="one-more")), 507, "state", "16")


def test_apps_may_see_and_do_nothing_of_this(uploads):
    ident = uploads.upload()
    for method, path in (("GET", ""), ("POST", ""), ("GET", f"/{ident}"), ("DELETE", f"/{ident}"),
                         ("POST", f"/{ident}/activate"), ("POST", "/confirm"),
                         ("POST", "/rollback")):  # fmt: skip
        answer = uploads.lab.curl("app", f"http://holdfast.internal/v1/programs{path}",
                                  "-X", method)  # fmt: skip
        assert answer.status == 403, (method, path, answer)


# --- while a program is in service ---


def test_an_interface_that_comes_later_gets_the_program_too(uploads):
    lab = uploads.lab
    name = "late_one"
    body = f"if (port_of(ctx) == 4242) return XDP_DROP; {PASS}"
    uploads.serve(uploads.upload(body, name="late-one"))
    lab.network.run("device", "ip", "link", "del", "app0")
    lab.network.add_app()

    def attached():
        out = lab.network.run("device", "ip", "-j", "-d", "link", "show", "app0")
        (link,) = json.loads(out)
        return link.get("xdp", {}).get("prog", {}).get("name") == name

    wait_until("the program is on app0", attached)
    works(lab)


def test_the_live_maps_are_carried_over(uploads):
    """A name that the built-in program answers is answered by it again after a round trip."""
    lab = uploads.lab
    for _ in range(2):
        assert lab.dig("app", "origin.example") == [ORIGIN[0]]
    before = lab.count(hook="steer", reason="dns-kernel")
    uploads.serve(uploads.upload(PASS, head=COUNTED))
    assert lab.dig("app", "origin.example") == [ORIGIN[0]]
    uploads.good("builtin/activate")
    assert lab.dig("app", "origin.example") == [ORIGIN[0]]
    assert lab.count(hook="steer", reason="dns-kernel") > before
