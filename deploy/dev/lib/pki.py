"""A private certificate authority below the state directory: EC P-256, made with the openssl program."""
import os
import subprocess

from procs import Failure

DAYS = "3650"


def openssl(*args, stdin=None):
    done = subprocess.run(["openssl", *args], input=stdin, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Failure(f"openssl {args[0]} failed: {done.stderr.strip()}")
    return done.stdout


def make_key(path):
    openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", path)
    os.chmod(path, 0o600)


class Authority:
    def __init__(self, directory):
        self.directory = directory
        self.ca = os.path.join(directory, "ca.pem")
        self.ca_key = os.path.join(directory, "ca-key.pem")

    def ensure(self):
        os.makedirs(self.directory, mode=0o700, exist_ok=True)
        if os.path.exists(self.ca):
            return
        make_key(self.ca_key)
        openssl("req", "-x509", "-new", "-key", self.ca_key, "-sha256", "-days", DAYS, "-subj", "/CN=Harpoon development CA",
                "-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign,cRLSign", "-out", self.ca)

    def issue(self, name, san, usage, common_name=None):
        """Certificate and key files for `name`, made once. `usage` is serverAuth or clientAuth, or both with a comma."""
        cert = os.path.join(self.directory, f"{name}.pem")
        key = os.path.join(self.directory, f"{name}-key.pem")
        if os.path.exists(cert) and os.path.exists(key):
            return cert, key
        make_key(key)
        request = openssl("req", "-new", "-key", key, "-subj", f"/CN={common_name or name}")
        extensions = os.path.join(self.directory, f"{name}.ext")
        with open(extensions, "w") as f:
            f.write(f"basicConstraints=CA:FALSE\nkeyUsage=digitalSignature\nextendedKeyUsage={usage}\nsubjectAltName={san}\n"
                    "authorityKeyIdentifier=keyid\nsubjectKeyIdentifier=hash\n")
        openssl("x509", "-req", "-CA", self.ca, "-CAkey", self.ca_key, "-set_serial", "0x" + os.urandom(16).hex(), "-days", DAYS,
                "-sha256", "-extfile", extensions, "-out", cert, stdin=request)
        os.unlink(extensions)
        return cert, key

    def server(self, name, address="127.0.0.1"):
        other = "" if address == "127.0.0.1" else f",IP:{address}"
        return self.issue(name, "DNS:localhost,IP:127.0.0.1" + other, "serverAuth,clientAuth", "localhost")

    def host(self, region, host):
        return self.issue(f"{region}-{host}", f"URI:harpoon://regions/{region}/hosts/{host}", "clientAuth", host)

    def user(self, name):
        return self.issue(f"user-{name}", f"URI:harpoon://users/{name}", "clientAuth", name)
