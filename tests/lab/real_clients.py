"""Real clients, as they are: how each asks for something short, how for something long, and what
it has to say when its link dies in the middle of that.

A Client's life: ask() online or held, then answered(); or long(), until begun(), the cut, broken()
at once (or, when it is one that carries on by itself, only once a link is back), and again() with
came_back().
"""

import pathlib
import re
import shlex

from network import run

HERE = pathlib.Path(__file__).resolve().parent
HTTP = "http://www.example:8000"
SLOW = HTTP + "/slow"
TABLE = {}


def client(name, *arguments):
    """Enters a class into the table, under a name and with what its instances are made with."""

    def enter(kind):
        TABLE[name] = (kind, arguments)
        return kind

    return enter


def make(name, services, folder):
    kind, arguments = TABLE[name]
    folder.mkdir()
    return kind(services, folder, *arguments)


class Client:
    carries_on = False  # does broken() wait for a link?

    def __init__(self, services, folder):
        self.services, self.folder = services, folder
        self.file = folder / "file"

    def start(self, command):
        """In the app, with nothing of this machine's user about it."""
        words = shlex.split(command) if isinstance(command, str) else command
        return self.services.lab.start("app", "env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin",
                              "LC_ALL=C.UTF-8", f"HOME={self.folder}", *words)  # fmt: skip

    def answered(self, done):
        assert done.rc == 0, done
        assert done.out.splitlines()[-1:] == ["hello"], done

    def begun(self, running):
        return self.file.exists() and self.file.stat().st_size > 0

    def while_cut(self):
        """What happens elsewhere in the meantime."""

    def again(self):
        return self.ask()

    def came_back(self, done):
        self.answered(done)

    def is_part(self, got):
        """Of the data's beginning, and nothing else."""
        return 0 < len(got) < len(self.services.data) and self.services.data.startswith(got)

    def whole(self):
        return self.file.read_bytes() == self.services.data


PLAIN, H2C, TLS = HTTP, "http://www.example:8001", "https://tls.example:8443"


@client("curl, HTTP/1.0", PLAIN, "--http1.0", "1.1")
@client("curl, HTTP/1.1", PLAIN, "--http1.1", "1.1")
@client("curl, Upgrade: h2c", PLAIN, "--http2", "1.1")  # which is left out, so 1.1 it is
@client("curl, h2c at once", H2C, "--http2-prior-knowledge", "2")
@client("curl, h2", TLS, "--http2", "2")
class Curl(Client):
    def __init__(self, services, folder, origin, option, version):
        super().__init__(services, folder)
        self.curl = f"curl -sS {option} --cacert {services.cloud}/ca.pem"
        self.origin, self.version = origin, version

    def ask(self):
        return f"{self.curl} -o - -w '%{{http_version}}\\nhello\\n' {self.origin}/hello"

    def answered(self, done):
        assert (done.rc, done.out) == (0, f"hello\n{self.version}\nhello\n"), done

    def long(self):
        return f"{self.curl} -o {self.file} {self.origin}/slow/data"

    def broken(self, done):
        assert done.rc in (16, 18, 56, 92) and done.err, done  # each says that it broke off
        assert self.is_part(self.file.read_bytes())

    def again(self):
        return f"{self.curl} -o {self.file} -C - {self.origin}/slow/data"

    def came_back(self, done):
        assert done.rc == 0 and self.whole(), done


@client("wget")
class Wget(Client):
    carries_on = True

    def ask(self):
        return f"wget -q -O - {HTTP}/hello"

    def long(self):
        return f"wget --tries=3 --waitretry=1 -O {self.file} {SLOW}/data"

    def broken(self, done):
        assert done.rc == 0 and "Connection reset" in done.err and self.whole(), done
        assert "206 Partial Content" in done.err, done


class Answers(Client):
    """Twelve answers; the same program goes on with its pool after something broke."""

    carries_on = True

    def ask(self, more=""):
        return f"{self.program} {HTTP}/hello {more}"

    def answered(self, done):
        assert done.rc == 0 and "12 answers: " in done.out and "hello" in done.out, done
        assert done.out.count("200") == 1, done  # all of them the same

    def long(self):
        return self.ask(f"{SLOW}/data")

    def begun(self, running):
        return "got" in running.out.read_text()

    def broken(self, done):
        assert f"broke: {self.says}" in done.out and "whole" not in done.out, done
        self.answered(done)


@client("Python requests")
class Requests(Answers):
    program = f"/usr/bin/python3 {HERE}/apps/pool.py"
    says = "ChunkedEncodingError"  # its word for a body that is not whole


@client("Node fetch")
class Fetch(Answers):
    program = f"node --no-warnings {HERE}/apps/fetch.mjs"
    says = "terminated"


@client("nghttp, h2c", "http://www.example:8002", H2C)
@client("nghttp, h2", "https://tls.example:8444", TLS)
class Nghttp(Client):
    def __init__(self, services, folder, origin, slow):
        super().__init__(services, folder)
        self.origin, self.slow = origin, slow

    def ask(self):
        return f"nghttp {self.origin}/hello"

    def long(self):
        return f"nghttp {self.slow}/slow/data"

    def begun(self, running):
        return running.out.stat().st_size > 0

    def broken(self, done):
        assert "Some requests were not processed" in done.err, done
        assert self.is_part(done.out.encode()), done


GIT = "git -c user.name=app -c user.email=app@lab.example"


def git(*arguments):
    """Without a network: in the app's folder, or the server's."""
    return run(*shlex.split(GIT), *map(str, arguments))


@client("git clone")
class GitClone(Client):
    def ask(self):
        clone = f"{GIT} clone -q {HTTP}/git/cargo.git {self.folder}/tree"
        return ["sh", "-c", f"rm -rf {self.folder}/tree && {clone} && echo hello"]

    def answered(self, done):
        super().answered(done)
        assert (self.folder / "tree/data").read_bytes() == self.services.data

    def long(self):
        return f"{GIT} clone --progress {SLOW}/git/cargo.git {self.folder}/tree"

    def begun(self, running):
        return "Receiving objects" in running.err.read_text()

    def broken(self, done):
        assert done.rc == 128 and "RPC failed" in done.err and "early EOF" in done.err, done
        assert not (self.folder / "tree").exists()


@client("git push")
class GitPush(Client):
    """To a branch of its own. It is cut while the server works on it, so that nobody knows what
    became of it: git says so, and when it asks again nothing is there twice."""

    def __init__(self, services, folder):
        super().__init__(services, folder)
        self.branch, self.bare = folder.name, services.folder / "git/cargo.git"
        self.push = f"{GIT} -C {folder}/tree push {HTTP}/git/cargo.git main:{self.branch}"
        git("clone", "-q", self.bare, folder / "tree")
        git("-C", folder / "tree", "commit", "-q", "--allow-empty", "-m", self.branch)

    def ask(self):
        return ["sh", "-c", f"{self.push} && echo hello"]

    def answered(self, done):
        super().answered(done)
        assert self.log() == [self.branch, "cargo"]

    def log(self):
        return git("-C", self.bare, "log", "--format=%s", self.branch).split()

    def long(self):
        (self.services.folder / "wait").touch()
        return self.push

    def begun(self, running):
        return (self.services.folder / "asked").exists()

    def while_cut(self):
        (self.services.folder / "wait").unlink()

    def broken(self, done):
        assert done.rc == 1 and "RPC failed; HTTP 502" in done.err, done


APT_CONF = """
Dir "{folder}/root";
Dir::Bin::methods "/usr/lib/apt/methods";
APT::Sandbox::User "root";
"""


@client("apt")
class Apt(Client):
    carries_on = True

    def __init__(self, services, folder):
        super().__init__(services, folder)
        root = folder / "root"
        for part in ("etc/apt/apt.conf.d", "etc/apt/preferences.d", "var/lib/dpkg",
                     "var/lib/apt/lists/partial", "var/cache/apt/archives/partial"):  # fmt: skip
            (root / part).mkdir(parents=True)
        (root / "var/lib/dpkg/status").touch()
        (folder / "apt.conf").write_text(APT_CONF.format(folder=folder))
        self.archives = root / "var/cache/apt/archives"

    def ask(self, archive=HTTP):
        sources = self.folder / "root/etc/apt/sources.list"
        sources.write_text(f"deb [trusted=yes] {archive}/apt ./\n")
        apt = f"env APT_CONFIG={self.folder}/apt.conf apt-get -q"
        return ["sh", "-c", f"{apt} update && {apt} -y -d install cargo && echo hello"]

    def answered(self, done):
        super().answered(done)
        assert "W:" not in done.err and "E:" not in done.err, done
        got = (self.archives / "cargo_1.0_all.deb").read_bytes()
        assert got == (self.services.www / "apt/cargo_1.0_all.deb").read_bytes()

    def long(self):
        return self.ask(SLOW)

    def begun(self, running):
        return any(path.stat().st_size for path in (self.archives / "partial").glob("cargo*"))

    def broken(self, done):
        self.answered(done)
        assert done.out.count("/slow/apt ./ cargo") == 3, done  # Get, Ign, Get: what is left


@client("WebSocket")
class WebSocket(Client):
    url = "ws://origin.example:8003/"

    def ask(self):
        return f"/usr/bin/python3 {HERE}/apps/chat.py {self.url}"

    def long(self):
        return self.ask() + " --stay"

    def begun(self, running):
        return "hello" in running.out.read_text()

    def broken(self, done):
        assert done.rc == 1 and "closed: 1006" in done.err, done  # RFC 6455: not closed in order


@client("mosquitto")
class Mosquitto(Client):
    """A persistent session: what was published while it was cut off arrives, once."""

    carries_on = True
    options = "-h origin.example -q 1"

    def __init__(self, services, folder):
        super().__init__(services, folder)
        self.topic = f"lab/{folder.name}"

    def ask(self):
        publish = f"mosquitto_pub {self.options} -r -t {self.topic} -m hello"
        return ["sh", "-c", f"{publish} && mosquitto_sub {self.options} -t {self.topic} -C 1"]

    def long(self):
        return f"stdbuf -oL mosquitto_sub {self.options} -d -c -i lab -t {self.topic}/long -C 1"

    def begun(self, running):
        return "Subscribed" in running.out.read_text()

    def while_cut(self):
        self.services.lab.network.run("cloud", "mosquitto_pub", "-h", "localhost", "-q", "1",
                             "-t", f"{self.topic}/long", "-m", "hello")  # fmt: skip

    def broken(self, done):
        assert done.rc == 0 and done.out.splitlines().count("hello") == 1, done
        assert done.out.count("sending CONNECT") == 2, done


@client("openssl s_client")
class SClient(Client):
    """Its server, s_server, says lines backwards, and has one connection at a time."""

    def ask(self, port=4433, last="CLOSE"):
        tls = f"-connect tls.example:{port} -servername tls.example -verify_return_error"
        openssl = f"openssl s_client -quiet -CAfile {self.services.cloud}/ca.pem {tls}"
        return ["sh", "-c", f"printf 'olleh\\n{last}\\n' | {openssl}"]

    def long(self):
        return self.ask(4434, "")

    def begun(self, running):
        return "hello" in running.out.read_text()

    def broken(self, done):
        assert done.rc and "read:errno=104" in done.err, done  # ECONNRESET


@client("ssh")
class Ssh(Client):
    def ask(self, command="echo hello"):
        known = f"-o UserKnownHostsFile={self.services.folder}/known -o GlobalKnownHostsFile=none"
        ssh = f"ssh -F none -i {self.services.folder}/key -o BatchMode=yes {known}"
        return f"{ssh} root@origin.example '{command}'"

    def long(self):
        return self.ask("echo begun; exec sleep 60")

    def begun(self, running):
        return "begun" in running.out.read_text()

    def broken(self, done):
        assert done.rc == 255 and re.search("reset|Broken pipe", done.err), done
