"""What it costs to bring an app's packets to a local socket: Holdfast, iptables, nftables.

    app: connections, datagrams ---- app0 device: one small sink behind all of them

    nothing      the app's destinations are the device's own: what all the rest costs
    holdfast     XDP, sk_lookup and the guard; rules are direct networks (connected routes)
    iptables     mangle/PREROUTING TPROXY (iptables-nft), a rule for each destination before it
    nftables     the same in nft's language, a rule for each destination
    nft-set      nftables with all destinations in one set

None of them needs connection tracking here. Each also drops what leaves on the link without
one mark. Cases: number of rules, none of which fits what the app sends.

    connections  TCP, opened, answered and closed, two at a time
    udp, dns     datagrams that came to the sink, sent by one thread as fast as it can
    *-cpu        busy time of the whole machine for each packet on app0, both directions: the
                 sender's and the sink's share included, which is the same for all

The case "hooks" says how long each program of Holdfast runs for one packet, by its verdict,
without any traffic (hooks_program.c). The case "loaded" is the kernel's own run time statistics
under the same load as above, in runs of their own, since keeping them costs some time.
"""

import json
import subprocess
import sys

from _measure import ROOT, Bench

PROGRAM = ROOT / "build/tests/bench/load_program"
HOOKS = ROOT / "build/tests/bench/hooks_program"
RULES = (10, 100, 1000)
TARGET = "203.0.113"  # .1 to .200: nowhere
LOCAL = "ip rule add fwmark 1 lookup 100\nip route add local default dev lo table 100\n"
PORTS = (("tcp", None, 80), ("udp", 53, 53), ("udp", None, 5000))


def networks(count):
    return [f"10.{100 + number // 256}.{number % 256}.0/24" for number in range(count)]


def nothing(count):
    return f"ip route add local {TARGET}.0/24 dev lo\n"


def holdfast(count):
    routes = "".join(f"route add {network} dev far0 proto kernel\n" for network in networks(count))
    return f"ip -batch - <<'END'\n{routes}END\n"


def iptables(count):
    lines = ["*mangle"]
    lines += [f"-A PREROUTING -i app0 -d {network} -j ACCEPT" for network in networks(count)]
    for protocol, port, to in PORTS:
        match = f"-p {protocol}" + (f" --dport {port}" if port else "")
        lines.append(f"-A PREROUTING -i app0 {match} -j TPROXY --on-port {to} --tproxy-mark 1")
    lines += ["COMMIT", "*filter"]
    lines += ["-A OUTPUT -o far0 -m mark ! --mark 0x08000000/0x08000000 -j DROP", "COMMIT"]
    return LOCAL + "iptables-nft-restore <<'END'\n" + "\n".join(lines) + "\nEND\n"


def nft(sets, before):
    lines = ["table ip t {", *sets, "chain in { type filter hook prerouting priority mangle;"]
    lines += before
    for protocol, port, to in PORTS:
        match = f"{protocol} dport {port}" if port else f"meta l4proto {protocol}"
        lines.append(f'iifname "app0" {match} tproxy to :{to} meta mark set 1 accept')
    lines += ["}", "chain out { type filter hook output priority filter;"]
    lines += ['oifname "far0" meta mark & 0x08000000 == 0 drop', "}", "}"]
    return LOCAL + "nft -f - <<'END'\n" + "\n".join(lines) + "\nEND\n"


def nftables(count):
    return nft([], [f'iifname "app0" ip daddr {network} accept' for network in networks(count)])


def nft_set(count):
    elements = ", ".join(networks(count))
    direct = f"set direct {{ type ipv4_addr; flags interval; elements = {{ {elements} }}; }}"
    return nft([direct], ['iifname "app0" ip daddr @direct accept'])


SYSTEMS = {"nothing": nothing, "holdfast": holdfast, "iptables": iptables,
           "nftables": nftables, "nft-set": nft_set}  # fmt: skip


def run(system, rules, kind, seconds, *timed):
    """One run; its namespaces end with the process."""
    direct = [str(rules), *timed] if system == "holdfast" else []
    done = subprocess.run([PROGRAM, kind, f"{seconds:g}", TARGET, *direct],
                          input=SYSTEMS[system](rules), capture_output=True, text=True)  # fmt: skip
    if done.returncode:
        sys.exit(f"{system}, {rules} rules, {kind}: {done.stdout}{done.stderr}")
    found = json.loads(done.stdout)
    if found["failed"] or not found["connections"] + found["received"]:
        sys.exit(f"{system}, {rules} rules, {kind}: {found}")
    return found


def measure(bench, system, rules):
    for kind in ("tcp", "udp", "dns"):
        found = run(system, rules, kind, bench.seconds)
        case = str(rules)
        if kind == "tcp":
            bench.add(case, "connections", "1/s", system, found["connections"] / found["seconds"])
        else:
            bench.add(case, kind, "packets/s", system, found["received"] / found["seconds"])
            bench.add(case, f"{kind}-lost", "packets", system, found["sent"] - found["received"])
        bench.add(case, f"{kind}-cpu", "us/packet", system, found["busy"] / found["packets"] * 1e6)


def measure_hooks(bench):
    done = subprocess.run([HOOKS], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{HOOKS.name}: {done.stdout}{done.stderr}")
    for what, spent in json.loads(done.stdout).items():
        bench.add("hooks", what, "ns/packet", "holdfast", spent)


def measure_loaded(bench):
    for kind in ("tcp", "udp", "dns"):
        found = run("holdfast", 100, kind, bench.seconds, "timed")
        for hook in ("steer", "lookup"):
            bench.add("loaded", f"{hook}: {kind}", "ns/packet", "holdfast", found[f"{hook}_ns"])


def main():
    bench = Bench("steer", seconds=2)
    for number in range(bench.rounds):
        measure_hooks(bench)
        measure_loaded(bench)
        for rules in RULES:
            for system in SYSTEMS:
                measure(bench, system, rules)
            print(f"round {number + 1}: {rules} rules", flush=True)
    bench.report()


if __name__ == "__main__":
    main()
