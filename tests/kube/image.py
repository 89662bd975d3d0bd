#!/usr/bin/env python3
"""Writes an OCI archive with one layer, without a container engine.

  image.py --output OUT.tar --name NAME:TAG --entrypoint /app,argument [--user UID] FILE=/path…

A FILE is a file of this machine; `link:TARGET=/path` makes a symbolic link. With --with-libraries
FILE=/path… the shared libraries that a program loads come along, at their own paths. The same
files give the same bytes. What `ctr images import`, `docker load` (25 and later), `podman load` and
`kind load image-archive` read.
"""

import argparse
import gzip
import hashlib
import io
import json
import os
import platform
import re
import subprocess
import sys
import tarfile

ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
# Where a runtime mounts, and what programs expect to be there.
FOLDERS = ("dev", "etc", "proc", "run", "sys", "tmp")


def digest(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


def libraries(program):
    """What ldd says that the dynamic linker loads; nothing for a static program."""
    ldd = subprocess.run(["ldd", program], capture_output=True, text=True)
    if "not a dynamic executable" in ldd.stderr + ldd.stdout or "statically linked" in ldd.stdout:
        return []
    if ldd.returncode != 0 or "not found" in ldd.stdout:
        sys.exit(f"error: ldd {program}: {ldd.stdout}{ldd.stderr}")
    return re.findall(r"(/\S+) \(0x", ldd.stdout)


class Layer:
    """A tar archive in which each folder precedes what is in it."""

    def __init__(self):
        self.bytes = io.BytesIO()
        self.tar = tarfile.open(fileobj=self.bytes, mode="w")
        self.paths = set()
        for folder in FOLDERS:
            self.folder(folder)

    def folder(self, path):
        if not path or path in self.paths:
            return
        self.folder(os.path.dirname(path))
        entry = tarfile.TarInfo(path)
        entry.type = tarfile.DIRTYPE
        entry.mode = 0o1777 if path == "tmp" else 0o755
        self.add(entry)

    def file(self, source, path):
        path = path.lstrip("/")
        if path in self.paths:
            return
        self.folder(os.path.dirname(path))
        entry = tarfile.TarInfo(path)
        if source.startswith("link:"):
            entry.type = tarfile.SYMTYPE
            entry.linkname = source.removeprefix("link:")
            self.add(entry)
            return
        with open(source, "rb") as file:
            data = file.read()
        entry.size = len(data)
        entry.mode = 0o755 if os.access(source, os.X_OK) else 0o644
        self.add(entry, data)

    def add(self, entry, data=None):
        self.paths.add(entry.name)
        self.tar.addfile(entry, io.BytesIO(data) if data is not None else None)

    def close(self):
        self.tar.close()
        return self.bytes.getvalue()


def write(output, name, layer, config):
    compressed = gzip.compress(layer, 1, mtime=0)
    media = "application/vnd.oci.image."
    config["rootfs"] = {"type": "layers", "diff_ids": [digest(layer)]}
    config = json.dumps(config).encode()

    def descriptor(kind, data):
        return {"mediaType": media + kind, "digest": digest(data), "size": len(data)}

    manifest = {
        "schemaVersion": 2,
        "mediaType": media + "manifest.v1+json",
        "config": descriptor("config.v1+json", config),
        "layers": [descriptor("layer.v1.tar+gzip", compressed)],
    }
    manifest = json.dumps(manifest).encode()
    annotations = {
        "io.containerd.image.name": name,
        "org.opencontainers.image.ref.name": name.rpartition(":")[2],
    }
    index = {
        "schemaVersion": 2,
        "manifests": [descriptor("manifest.v1+json", manifest) | {"annotations": annotations}],
    }
    with tarfile.open(output, "w") as archive:
        def add(path, data):
            entry = tarfile.TarInfo(path)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))

        add("oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
        add("index.json", json.dumps(index).encode())
        for blob in (config, manifest, compressed):
            add("blobs/sha256/" + digest(blob).removeprefix("sha256:"), blob)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", required=True, metavar="OUT.tar")
    parser.add_argument("--name", required=True, help="with registry and tag: localhost/anyam-test/app:1")
    parser.add_argument("--entrypoint", required=True, help="program and arguments, separated by commas")
    parser.add_argument("--user", default="0", help="UID[:GID]")
    parser.add_argument("--with-libraries", nargs="+", default=[], metavar="FILE=/path")
    parser.add_argument("files", nargs="*", metavar="FILE=/path")
    given = parser.parse_intermixed_args()

    layer = Layer()
    for place in given.files + given.with_libraries:
        source, _, path = place.partition("=")
        if not path.startswith("/"):
            sys.exit(f"error: {place}: write FILE=/path/in/the/image")
        layer.file(source, path)
    for place in given.with_libraries:
        for library in libraries(place.partition("=")[0]):
            layer.file(library, library)
    config = {
        "architecture": ARCHITECTURES.get(platform.machine(), platform.machine()),
        "os": "linux",
        "config": {
            "Entrypoint": given.entrypoint.split(","),
            "Env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"],
            "User": given.user,
        },
    }
    write(given.output, given.name, layer.close(), config)


if __name__ == "__main__":
    main()
