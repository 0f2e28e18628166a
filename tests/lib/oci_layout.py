#!/usr/bin/python3
"""Makes an OCI image layout of small images, good and hostile, for the tests of the container runtime.

  oci_layout.py DIR

Good tags: base (busybox; sleeps, ends on SIGTERM), layered (base and a layer with whiteouts, links, a user and a working directory),
plain (uncompressed), zstd, nested (through an index for several machines).
Hostile tags, each broken in one way: see BAD.
"""
import gzip
import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile

BUSYBOX = "/bin/busybox"
ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine)
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
RUN = """#!/bin/sh
# Process 1: sleeps until it is asked to end.
trap 'exit 3' TERM
trap 'exit 4' USR1
echo started
while :; do sleep 1000 & wait $!; done
"""


def digest(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


def entry(tar, name, kind=tarfile.REGTYPE, data=b"", mode=0o644, link="", uid=0, gid=0, pax=None):
    info = tarfile.TarInfo(name)
    info.type, info.mode, info.linkname, info.uid, info.gid, info.size = kind, mode, link, uid, gid, len(data)
    info.pax_headers = pax or {}
    tar.addfile(info, io.BytesIO(data) if data else None)


def archive(fill, form=tarfile.PAX_FORMAT):
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=form) as tar:
        fill(tar)
    return raw.getvalue()


def directories(tar, names):
    for name in names.split():
        entry(tar, name, tarfile.DIRTYPE, mode=0o755)


def base(tar):
    directories(tar, "bin etc proc sys dev tmp root data data/old")
    with open(BUSYBOX, "rb") as f:
        entry(tar, "bin/busybox", data=f.read(), mode=0o755)
    for applet in subprocess.run([BUSYBOX, "--list"], capture_output=True, text=True, check=True).stdout.split():
        if applet != "busybox":
            entry(tar, "bin/" + applet, tarfile.SYMTYPE, link="busybox", mode=0o777)
    entry(tar, "bin/run", data=RUN.encode(), mode=0o755)
    entry(tar, "etc/passwd", data=b"root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001:app:/home/app:/bin/sh\n")
    entry(tar, "etc/group", data=b"root:x:0:\napp:x:1001:\nextra:x:1002:app,other\n")
    entry(tar, "data/old/secret", data=b"old\n")
    entry(tar, "data/removed", data=b"removed\n")
    entry(tar, "data/kept", data=b"kept\n")
    entry(tar, "dev/null", tarfile.CHRTYPE, mode=0o666)  # ignored: devices come from the runtime


def upper(tar):
    directories(tar, "home home/app data")
    entry(tar, "data/.wh.removed")
    directories(tar, "data/old")
    entry(tar, "data/old/.wh..wh..opq")
    entry(tar, "data/old/new", data=b"new\n")
    entry(tar, "data/" + "long" * 60, data=b"long name\n", uid=1000, gid=1001, mode=0o640)
    entry(tar, "data/linked", tarfile.LNKTYPE, link="data/old/new")
    entry(tar, "data/pointer", tarfile.SYMTYPE, link="/etc/passwd", mode=0o777)
    entry(tar, "data/attr", data=b"x", pax={"SCHILY.xattr.user.colour": "blue"})


def escape_dots(tar):
    entry(tar, "../../../../escaped-by-dots", data=b"x")


def escape_symlink(tar):
    entry(tar, "out", tarfile.SYMTYPE, link="/tmp", mode=0o777)
    entry(tar, "out/harpoon-escaped-by-symlink", data=b"x")


def escape_relative(tar):
    directories(tar, "a")
    entry(tar, "a/out", tarfile.SYMTYPE, link="../../../../../../../../tmp", mode=0o777)
    entry(tar, "a/out/harpoon-escaped-by-relative", data=b"x")


def escape_hardlink(tar):
    entry(tar, "passwd", tarfile.LNKTYPE, link="../../../../../../../../etc/passwd")


def escape_hardlink_symlink(tar):
    entry(tar, "out", tarfile.SYMTYPE, link="/etc", mode=0o777)
    entry(tar, "passwd", tarfile.LNKTYPE, link="out/passwd")


def escape_whiteout(tar):
    entry(tar, ".wh...", data=b"")


class Layout:
    def __init__(self, directory):
        self.directory = directory
        self.tags = []
        os.makedirs(os.path.join(directory, "blobs/sha256"), exist_ok=True)

    def path(self, name):
        return os.path.join(self.directory, "blobs/sha256", name.split(":")[1])

    def blob(self, data, media_type, **changes):
        name = digest(data)
        with open(self.path(name), "wb") as f:
            f.write(data)
        return {"mediaType": media_type, "digest": name, "size": len(data), **changes}

    def layer(self, fill, pack="gzip"):
        raw = fill if isinstance(fill, bytes) else archive(fill)
        if pack == "gzip":
            data, kind = gzip.compress(raw, 6, mtime=0), LAYER + "+gzip"
        elif pack == "zstd":
            data, kind = subprocess.run(["zstd", "-q", "-c"], input=raw, capture_output=True, check=True).stdout, LAYER + "+zstd"
        else:
            data, kind = raw, LAYER
        return self.blob(data, kind), digest(raw)

    def config(self, diff_ids, **changes):
        config = {"Env": ["PATH=/bin", "FROM_IMAGE=yes", "BOTH=image"], "Cmd": ["/bin/run"], "StopSignal": "SIGTERM"}
        config.update(changes)
        text = json.dumps({"architecture": ARCHITECTURE, "os": "linux", "config": config, "rootfs": {"type": "layers", "diff_ids": diff_ids}})
        return self.blob(text.encode(), CONFIG)

    def manifest(self, config, layers):
        return self.blob(json.dumps({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers}).encode(), MANIFEST)

    def tag(self, name, blob):
        self.tags.append({**blob, "annotations": {"org.opencontainers.image.ref.name": name}})

    def image(self, name, layers, **config):
        blob = self.manifest(self.config([d for _, d in layers], **config), [b for b, _ in layers])
        self.tag(name, blob)
        return blob

    def finish(self):
        with open(os.path.join(self.directory, "oci-layout"), "w", encoding="ascii") as f:
            f.write('{"imageLayoutVersion":"1.0.0"}')
        with open(os.path.join(self.directory, "index.json"), "w", encoding="ascii") as f:
            json.dump({"schemaVersion": 2, "mediaType": INDEX, "manifests": self.tags}, f)


def good(layout):
    bottom = layout.layer(base)
    top = layout.layer(upper)
    layout.image("base", [bottom])
    layout.image("layered", [bottom, top], User="app", WorkingDir="/home/app", Entrypoint=["/bin/sh", "-c"], Cmd=["exec /bin/run"], StopSignal="SIGUSR1")
    layout.image("plain", [layout.layer(archive(base, tarfile.GNU_FORMAT), pack="none")])
    layout.image("zstd", [layout.layer(lambda tar: (base(tar), entry(tar, "zstd", data=b"z")), pack="zstd")])
    inner = layout.manifest(layout.config([bottom[1]], Env=["PATH=/bin", "NESTED=yes"]), [bottom[0]])
    other = {**inner, "digest": digest(b"another machine's"), "platform": {"os": "linux", "architecture": "none"}}
    mine = {**inner, "platform": {"os": "linux", "architecture": ARCHITECTURE}}
    layout.tag("nested", layout.blob(json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": [other, mine]}).encode(), INDEX))


def bad(layout):
    bottom = layout.layer(base)
    for fill in (escape_dots, escape_symlink, escape_relative, escape_hardlink, escape_hardlink_symlink, escape_whiteout):
        layout.image("bad-" + fill.__name__.replace("_", "-"), [bottom, layout.layer(fill)])
    # A blob that is not what its digest says.
    blob, diff_id = layout.layer(lambda tar: entry(tar, "corrupt", data=b"corrupt"))
    with open(layout.path(blob["digest"]), "r+b") as f:
        f.seek(20)
        f.write(b"\xff\xff")
    layout.image("bad-digest", [bottom, (blob, diff_id)])
    # A blob that is missing, shorter than said, or cut off.
    blob, diff_id = layout.layer(lambda tar: entry(tar, "missing", data=b"missing"))
    os.unlink(layout.path(blob["digest"]))
    layout.image("bad-missing", [bottom, (blob, diff_id)])
    blob, diff_id = layout.layer(lambda tar: entry(tar, "short", data=b"short"))
    layout.image("bad-size", [bottom, ({**blob, "size": blob["size"] + 1}, diff_id)])
    raw = archive(lambda tar: entry(tar, "cut", data=b"cut" * 100000))
    cut = gzip.compress(raw, 6, mtime=0)[:-20]
    layout.image("bad-truncated", [bottom, (layout.blob(cut, LAYER + "+gzip"), digest(raw))])
    half = archive(lambda tar: entry(tar, "half", data=b"half" * 1000))[:2000]
    layout.image("bad-half", [bottom, layout.layer(half, pack="none")])
    layout.image("bad-noise", [bottom, layout.layer(os.urandom(4096), pack="none")])
    # Content that is not what the configuration says.
    blob, _ = layout.layer(lambda tar: entry(tar, "other", data=b"other"))
    layout.image("bad-diffid", [bottom, (blob, digest(b"something else"))])
    # Documents.
    layout.tag("bad-json", layout.blob(b'{"schemaVersion": 2, ', MANIFEST))
    layout.tag("bad-schema", layout.blob(b'{"schemaVersion": 1, "fsLayers": []}', MANIFEST))
    huge = b'{"schemaVersion": 2, "padding": "' + b"x" * (5 << 20) + b'"}'
    layout.tag("bad-huge", layout.blob(huge, MANIFEST))
    layout.tag("bad-layers", layout.manifest(layout.config([bottom[1]] * 200), [bottom[0]] * 200))
    layout.tag("bad-nolayers", layout.manifest(layout.config([]), []))
    layout.tag("bad-blobname", layout.manifest(layout.config([bottom[1]]), [{**bottom[0], "digest": "sha256:../../../../etc/passwd"}]))
    config = {"architecture": "none", "os": "linux", "config": {}, "rootfs": {"type": "layers", "diff_ids": [bottom[1]]}}
    layout.tag("bad-machine", layout.manifest(layout.blob(json.dumps(config).encode(), CONFIG), [bottom[0]]))
    layout.image("bad-env", [bottom], Env=["A=1", 7])
    layout.image("bad-user", [bottom], User="nosuchuser")
    layout.image("bad-command", [bottom], Cmd=None)
    layout.image("bad-program", [bottom], Cmd=["/bin/nosuchprogram"])


def main():
    layout = Layout(sys.argv[1])
    good(layout)
    bad(layout)
    layout.finish()


if __name__ == "__main__":
    main()
