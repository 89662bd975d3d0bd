#!/usr/bin/env python3
"""Images of Anyam as OCI archives, without a container engine.

    images.py archive IMAGE OUT.tar --binary amd64=FILE [--binary arm64=FILE]…
    images.py rootfs IMAGE FOLDER --binary ARCH=FILE

`archive` writes an OCI image layout (image-spec 1.1) as a tar: one index, one manifest for each
architecture, one layer each. The same input gives the same digest: entries are sorted, times are
SOURCE_DATE_EPOCH (else the commit's time, else 0), owners are fixed.

`rootfs` lays out the same files in a folder: the Dockerfiles beside this script copy from it, so
that an image that Docker builds has the same contents.

What an image holds is IMAGES and `files` below: the program without debug information, the shared
libraries that it needs, CA certificates, a passwd. There is no shell and no package manager.
"""

import argparse
import gzip
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
TREE = HERE.parent.parent
UID = 1337

IMAGES = {
    "proxy": {
        "binary": "anyam-proxy",
        "title": "anyam-proxy",
        "description": "The sidecar of the Anyam service mesh, and the command that sets up a pod's netfilter rules",
    },
    "control": {
        "binary": "anyam-control",
        "title": "anyam-control",
        "description": "The control plane of the Anyam service mesh",
    },
}

# Folders of an architecture's libraries: on a machine of that architecture, and for cross-compiling
# (Debian's libc6-arm64-cross and libgcc-s1-arm64-cross).
MACHINES = {"amd64": "x86_64-linux-gnu", "arm64": "aarch64-linux-gnu"}
# Machine numbers, at offset 18 of an ELF file.
ELF_MACHINES = {"amd64": 62, "arm64": 183}
# Debian's packages of the libraries, whose licences require their notices.
NOTICES = {"libc.so.6": "libc6", "libgcc_s.so.1": "libgcc-s1"}

CA_CERTIFICATES = "etc/ssl/certs/ca-certificates.crt"
PASSWD = f"root:x:0:0:root:/:/sbin/nologin\nanyam:x:{UID}:{UID}:Anyam:/var/lib/anyam:/sbin/nologin\nnobody:x:65534:65534:nobody:/nonexistent:/sbin/nologin\n"
GROUP = f"root:x:0:\nanyam:x:{UID}:\nnogroup:x:65534:\n"
# Names are resolved by /etc/hosts, then by DNS.
NSSWITCH = "passwd: files\ngroup: files\nhosts: files dns\n"


def fail(text):
    sys.exit(f"images.py: {text}")


class Entry:
    """A file, a folder or a link of an image."""

    def __init__(self, data=None, mode=0o644, link=None, owner=0):
        self.data, self.mode, self.link, self.owner = data, mode, link, owner


def files(image, binary, arch):
    """Everything in an image: path without its first slash -> Entry."""
    check_machine(binary, arch)
    name = IMAGES[image]["binary"]
    all = {
        "tmp": Entry(mode=0o1777),
        "var/lib/anyam": Entry(mode=0o700, owner=UID),
        "etc/passwd": Entry(PASSWD.encode()),
        "etc/group": Entry(GROUP.encode()),
        "etc/nsswitch.conf": Entry(NSSWITCH.encode()),
        CA_CERTIFICATES: Entry(certificates()),
        "usr/share/doc/anyam/LICENSE": Entry((TREE / "LICENSE").read_bytes()),
        f"usr/local/bin/{name}": Entry(stripped(binary, arch), mode=0o755),
    }
    for path, source in libraries(binary, arch).items():
        all[path] = Entry(source.read_bytes(), mode=0o755)
        notice = notice_of(source.name, arch)
        if notice:
            all[f"usr/share/doc/{NOTICES[source.name]}/copyright"] = Entry(notice)
    for path in list(all):
        for folder in Path(path).parents:
            if str(folder) != ".":
                all.setdefault(str(folder), Entry(mode=0o755))
    return dict(sorted(all.items()))


def check_machine(binary, arch):
    try:
        with open(binary, "rb") as file:
            head = file.read(20)
    except OSError as error:
        fail(f"{binary}: {error.strerror}; build it first (`make release`, or --binary)")
    if head[:4] != b"\x7fELF":
        fail(f"{binary} is no ELF file")
    machine = int.from_bytes(head[18:20], "little")
    if machine != ELF_MACHINES[arch]:
        fail(f"{binary} is not for {arch} (ELF machine {machine})")


def tool(name, arch):
    """binutils' for this machine's architecture, or those for another one's."""
    native = {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine)
    candidates = [f"{MACHINES[arch]}-{name}"] + ([name] if arch == native else [])
    for candidate in candidates:
        if shutil.which(candidate):
            return candidate
    fail(f"no {candidates[0]}: install binutils-{MACHINES[arch].replace('_', '-')}")


def stripped(binary, arch):
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "stripped"
        subprocess.run([tool("strip", arch), "--strip-all", "-o", out, binary], check=True)
        return out.read_bytes()


def libraries(binary, arch):
    """Shared libraries, those of libraries too: path in the image -> file here."""
    machine = MACHINES[arch]
    folders = [Path(root) / machine for root in ("/lib", "/usr/lib")]
    folders += [Path("/usr") / machine / "lib"]
    found, wanted = {}, [binary]
    while wanted:
        dynamic = subprocess.run(
            [tool("readelf", arch), "--dynamic", "--program-headers", "--wide", wanted.pop()],
            check=True, capture_output=True, text=True).stdout
        loader = re.search(r"Requesting program interpreter: (/[^\]]+)\]", dynamic)
        names = re.findall(r"\(NEEDED\).*\[([^\]]+)\]", dynamic)
        if loader:
            path = loader.group(1)
            found[path.lstrip("/")] = locate(Path(path).name, folders, arch)
        for name in names:
            path = f"lib/{machine}/{name}"
            if path in found or any(source.name == name for source in found.values()):
                continue
            found[path] = locate(name, folders, arch)
            wanted.append(found[path])
    return found


def locate(name, folders, arch):
    for folder in folders:
        if (folder / name).exists():
            return folder / name
    package = "libc6 and libgcc-s1" if folders[0].exists() else f"libc6-{arch}-cross and libgcc-s1-{arch}-cross"
    fail(f"the library {name} for {arch} is not in {', '.join(map(str, folders))}; install {package}")


def notice_of(library, arch):
    package = NOTICES.get(library)
    if not package:
        return None
    for folder in (package, f"{package}-{arch}-cross"):
        path = Path("/usr/share/doc") / folder / "copyright"
        if path.exists():
            return path.read_bytes()
    print(f"images.py: note: no copyright file of {package} here to put into the image", file=sys.stderr)
    return None


def certificates():
    path = Path("/") / CA_CERTIFICATES
    if not path.exists():
        fail(f"no {path}: install ca-certificates")
    return path.read_bytes()


def version():
    text = (TREE / "Cargo.toml").read_text()
    section = text.split("[workspace.package]", 1)[1]
    return re.search(r'^version = "([^"]+)"', section, re.M).group(1)


def repository():
    text = (TREE / "Cargo.toml").read_text()
    return re.search(r'^repository = "([^"]+)"', text, re.M).group(1)


def commit():
    """The commit and its time; nothing outside of a repository."""
    def git(*words):
        if not shutil.which("git"):
            return ""
        done = subprocess.run(["git", "-C", TREE, *words], capture_output=True, text=True)
        return done.stdout.strip() if done.returncode == 0 else ""
    return git("rev-parse", "HEAD"), git("log", "-1", "--format=%ct")


def epoch():
    return int(os.environ.get("SOURCE_DATE_EPOCH") or commit()[1] or 0)


def labels(image):
    all = {
        "org.opencontainers.image.title": IMAGES[image]["title"],
        "org.opencontainers.image.description": IMAGES[image]["description"],
        "org.opencontainers.image.version": version(),
        "org.opencontainers.image.licenses": "Apache-2.0",
        "org.opencontainers.image.source": repository(),
        "org.opencontainers.image.created": created(),
    }
    if commit()[0]:
        all["org.opencontainers.image.revision"] = commit()[0]
    return all


def created():
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(epoch()))


def settings(image):
    """How a container of the image starts; the Dockerfiles say the same."""
    return {
        "User": f"{UID}:{UID}",
        "Env": ["PATH=/usr/local/bin", f"SSL_CERT_FILE=/{CA_CERTIFICATES}"],
        "Entrypoint": [f"/usr/local/bin/{IMAGES[image]['binary']}"],
        "WorkingDir": "/",
    }


def layer(entries):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for path, entry in entries.items():
            info = tarfile.TarInfo(path)
            info.mode, info.uid, info.gid, info.mtime = entry.mode, entry.owner, entry.owner, epoch()
            if entry.data is None:
                info.type = tarfile.DIRTYPE
                tar.addfile(info)
            else:
                info.size = len(entry.data)
                tar.addfile(info, io.BytesIO(entry.data))
    return out.getvalue()


class Blobs:
    """Contents by their digest."""

    def __init__(self):
        self.all = {}

    def add(self, data, media_type, **more):
        digest = hashlib.sha256(data).hexdigest()
        self.all[digest] = data
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data), **more}

    def add_json(self, value, media_type, **more):
        return self.add(encoded(value), media_type, **more)


def encoded(value):
    return json.dumps(value, indent=1, sort_keys=True).encode()


OCI = "application/vnd.oci.image"


def manifest(image, arch, binary, blobs):
    data = layer(files(image, binary, arch))
    config = {
        "architecture": arch,
        "os": "linux",
        "created": created(),
        "config": {**settings(image), "Labels": labels(image)},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(data).hexdigest()}"]},
    }
    value = {
        "schemaVersion": 2,
        "mediaType": f"{OCI}.manifest.v1+json",
        "config": blobs.add_json(config, f"{OCI}.config.v1+json"),
        # No time and no name in the header: they would change the digest.
        "layers": [blobs.add(gzip.compress(data, 9, mtime=0), f"{OCI}.layer.v1.tar+gzip")],
        "annotations": labels(image),
    }
    platform = {"architecture": arch, "os": "linux"}
    return blobs.add_json(value, value["mediaType"], platform=platform)


def archive(image, out, binaries, registry, tag):
    name = f"{registry.rstrip('/')}/anyam/{image}:{tag}"
    blobs = Blobs()
    manifests = [manifest(image, arch, binaries[arch], blobs) for arch in sorted(binaries)]
    index = {
        "schemaVersion": 2,
        "mediaType": f"{OCI}.index.v1+json",
        "manifests": manifests,
        "annotations": labels(image),
    }
    top = blobs.add_json(index, index["mediaType"], annotations={
        # The name under which containerd and kind import it, and the tag for others.
        "io.containerd.image.name": name,
        "org.opencontainers.image.ref.name": tag,
    })
    members = {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}',
               "index.json": encoded({"schemaVersion": 2, "mediaType": f"{OCI}.index.v1+json",
                                      "manifests": [top]})}
    members.update((f"blobs/sha256/{digest}", data) for digest, data in sorted(blobs.all.items()))
    out.parent.mkdir(parents=True, exist_ok=True)
    unfinished = out.with_suffix(".unfinished")
    with tarfile.open(unfinished, "w", format=tarfile.USTAR_FORMAT) as tar:
        for path, data in members.items():
            info = tarfile.TarInfo(path)
            info.size, info.mode, info.mtime = len(data), 0o644, epoch()
            tar.addfile(info, io.BytesIO(data))
    unfinished.replace(out)
    size = sum(len(data) for data in blobs.all.values()) / 1e6
    print(f"{out}: {name} ({', '.join(sorted(binaries))}), {size:.1f} MB, {top['digest']}")


def rootfs(image, folder, binaries):
    if len(binaries) != 1:
        fail("a root file system is of one architecture")
    (arch, binary), = binaries.items()
    for path, entry in files(image, binary, arch).items():
        place = folder / path
        if entry.data is None:
            place.mkdir(parents=True, exist_ok=True)
        else:
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(entry.data)
        place.chmod(entry.mode)
        if entry.owner:
            os.chown(place, entry.owner, entry.owner)


def binary(text):
    arch, _, path = text.partition("=")
    if arch not in MACHINES or not path:
        raise argparse.ArgumentTypeError(f"expected ARCH=FILE with {' or '.join(MACHINES)}, found {text!r}")
    return arch, path


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["archive", "rootfs"])
    parser.add_argument("image", choices=IMAGES)
    parser.add_argument("out", type=Path)
    parser.add_argument("--binary", type=binary, action="append", required=True, metavar="ARCH=FILE")
    parser.add_argument("--registry", default="docker.io", help="what the image's name begins with (default: docker.io)")
    parser.add_argument("--tag", default=version(), help="what it ends with (default: the workspace's version)")
    arguments = parser.parse_args()
    binaries = dict(arguments.binary)
    if len(binaries) != len(arguments.binary):
        fail("--binary: the same architecture twice")
    if arguments.what == "rootfs":
        return rootfs(arguments.image, arguments.out, binaries)
    if not re.fullmatch(r"\w[\w.-]{0,127}", arguments.tag, re.ASCII):
        fail(f"--tag {arguments.tag!r}: 1 to 128 letters, digits, _, . and -, not . or - first")
    archive(arguments.image, arguments.out, binaries, arguments.registry, arguments.tag)


if __name__ == "__main__":
    main()
