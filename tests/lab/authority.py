"""Certificates of the tests' own, made with openssl: authorities, servers, clients, any dates."""

import datetime
import pathlib
import subprocess

CONF = """
[ca]
default_ca = own
[own]
database = {folder}/index
new_certs_dir = {folder}
rand_serial = yes
unique_subject = no
default_md = sha256
policy = any
copy_extensions = none
[any]
commonName = supplied
"""
KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]


def openssl(*arguments):
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)


def stamp(seconds):
    """That many seconds from now, as openssl ca has it."""
    moment = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=seconds)
    return moment.strftime("%Y%m%d%H%M%SZ")


class Authority:
    def __init__(self, folder, name="authority"):
        self.folder = pathlib.Path(folder) / name
        self.folder.mkdir(parents=True)
        (self.folder / "index").touch()
        (self.folder / "conf").write_text(CONF.format(folder=self.folder))
        self.key, self.pem = self.folder / "ca.key", self.folder / "ca.pem"
        openssl("req", "-x509", *KEY, "-keyout", self.key, "-out", self.pem, "-days", "30",
                "-subj", f"/CN={name}")  # fmt: skip

    def issue(self, into, name, names=None, usage="serverAuth", begins=-3600, ends=86400):
        """INTO, key and certificate in one file; names: "DNS:a,IP:b"; begins, ends: seconds from
        now."""
        stem = self.folder / f"{name}-{usage}"
        extensions = f"extendedKeyUsage={usage}\n"
        if names:
            extensions += f"subjectAltName={names}\n"
        stem.with_suffix(".ext").write_text(extensions)
        openssl("req", *KEY, "-keyout", f"{stem}.key", "-out", f"{stem}.csr", "-subj",
                f"/CN={name}")  # fmt: skip
        openssl("ca", "-batch", "-notext", "-config", self.folder / "conf", "-cert", self.pem,
                "-keyfile", self.key, "-in", f"{stem}.csr", "-out", f"{stem}.pem", "-extfile",
                stem.with_suffix(".ext"), "-startdate", stamp(begins), "-enddate",
                stamp(ends))  # fmt: skip
        into = pathlib.Path(into)
        whole = pathlib.Path(f"{stem}.key").read_text() + pathlib.Path(f"{stem}.pem").read_text()
        temporary = into.with_suffix(".new")
        temporary.write_text(whole)
        temporary.rename(into)
        return into


def self_signed(into, name):
    openssl("req", "-x509", *KEY, "-keyout", f"{into}.key", "-out", f"{into}.crt", "-days", "30",
            "-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name}")  # fmt: skip
    into.write_text(pathlib.Path(f"{into}.key").read_text()
                    + pathlib.Path(f"{into}.crt").read_text())  # fmt: skip
    return into
