"""
Certificates for tests: an authority of a test's own, and what it certifies. Needs the openssl command.

They have all the extensions that RFC 5280 wants: Python 3.13 insists on them.
"""

import subprocess
from pathlib import Path


class Authority:
    """A certificate authority of a test's own."""

    def __init__(self, directory: Path, name="Test authority"):
        self.directory = directory
        self.directory.mkdir(parents=True, exist_ok=True)
        self.certificate = directory / "ca.crt"
        self.key = directory / "ca.key"
        self._openssl(
            "req", "-x509", *self._new_key(self.key), "-subj", f"/CN={name}", "-days", "2", "-out", self.certificate,
            "-addext", "keyUsage=critical,keyCertSign,cRLSign",
        )  # fmt: skip

    def issue(self, *names):
        """A certificate for these subject alternative names ("DNS:localhost", "IP:127.0.0.1"): (certificate, key)."""
        stem = "".join(c if c.isalnum() else "-" for c in names[0])
        certificate, key, request, extensions = (self.directory / f"{stem}.{end}" for end in ("crt", "key", "csr", "ext"))
        extensions.write_text(
            f"subjectAltName={','.join(names)}\n"
            "keyUsage=critical,digitalSignature\n"
            "subjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n"
        )
        self._openssl("req", "-new", *self._new_key(key), "-subj", "/CN=redis", "-out", request)
        self._openssl(
            "x509", "-req", "-in", request, "-CA", self.certificate, "-CAkey", self.key, "-CAcreateserial",
            "-days", "2", "-extfile", extensions, "-out", certificate,
        )  # fmt: skip
        return certificate, key

    @staticmethod
    def _new_key(path):
        return ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", path]

    @staticmethod
    def _openssl(*arguments):
        done = subprocess.run(["openssl", *map(str, arguments)], capture_output=True, text=True, stdin=subprocess.DEVNULL)
        assert done.returncode == 0, done.stderr


def tls_settings(authority, *names):
    """What a Redis needs that speaks nothing but TLS on its port (which is `tls_port`), as the host of these names."""
    certificate, key = authority.issue(*names)
    return {
        "tls_cert_file": certificate,
        "tls_key_file": key,
        "tls_ca_cert_file": authority.certificate,
        "tls_auth_clients": "no",
    }
