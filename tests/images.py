#!/usr/bin/env python3
"""The images, made from programs that are built already: images.py PROXY CONTROL

Made twice they are the same; each is unpacked as an engine does it, checked against the OCI image
specification, and its program run in a chroot of nothing but the image, as the image's user.
Nothing is compiled. Needs root (chroot, a network namespace), as `make test` does.
"""

import gzip
import hashlib
import importlib.util
import io
import json
import os
import re
import shlex
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

TREE = Path(__file__).resolve().parent.parent
SCRIPT = TREE / "deploy/images/images.py"
ARCH = {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine]
# Bytes of an unpacked proxy image.
MOST = 30_000_000


def script():
    sys.dont_write_bytecode = True
    spec = importlib.util.spec_from_file_location("images", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


IMAGES = script()


def equal(found, expected, what):
    if found != expected:
        sys.exit(f"{what}: {found!r}, expected {expected!r}")


def make(image, binary, out):
    subprocess.run([SCRIPT, "archive", image, out, "--binary", f"{ARCH}={binary}"],
                   check=True, stdout=subprocess.DEVNULL)
    return out.read_bytes()


def blob(members, descriptor):
    """A blob, found by its digest, which has to be right."""
    algorithm, digest = descriptor["digest"].split(":")
    equal(algorithm, "sha256", "digest")
    data = members[f"blobs/sha256/{digest}"]
    equal(hashlib.sha256(data).hexdigest(), digest, descriptor["mediaType"])
    equal(len(data), descriptor["size"], descriptor["mediaType"])
    return data


def unpack(image, archive):
    """Checks the layout; the configuration and the layer's tar."""
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        members = {info.name: tar.extractfile(info).read() for info in tar if info.isfile()}
    equal(json.loads(members["oci-layout"]), {"imageLayoutVersion": "1.0.0"}, "oci-layout")
    index = json.loads(members["index.json"])
    equal(index["schemaVersion"], 2, "index.json")
    (top,) = index["manifests"]
    version = IMAGES.version()
    equal(top["annotations"], {
        "io.containerd.image.name": f"docker.io/anyam/{image}:{version}",
        "org.opencontainers.image.ref.name": version}, "name")
    (entry,) = json.loads(blob(members, top))["manifests"]
    equal(entry["platform"], {"architecture": ARCH, "os": "linux"}, "platform")
    manifest = json.loads(blob(members, entry))
    config = json.loads(blob(members, manifest["config"]))
    (layer,) = manifest["layers"]
    data = gzip.decompress(blob(members, layer))
    equal(config["rootfs"]["diff_ids"], ["sha256:" + hashlib.sha256(data).hexdigest()], "diff_ids")
    equal((config["architecture"], config["os"]), (ARCH, "linux"), "config")
    # Each blob is referred to.
    equal(len([name for name in members if name.startswith("blobs/")]), 4, "blobs")
    labels = config["config"]["Labels"]
    for label in ("title", "description", "version", "licenses", "source", "created"):
        if not labels[f"org.opencontainers.image.{label}"]:
            sys.exit(f"no label {label}")
    return config["config"], data


def check_contents(image, layer, root):
    with tarfile.open(fileobj=io.BytesIO(layer)) as tar:
        entries = {info.name: info for info in tar}
        for info in entries.values():
            if info.mode & 0o6000 or info.issym() or info.isdev():
                sys.exit(f"{info.name} has no place in an image")
            if info.mode & 0o022 and info.name != "tmp":
                sys.exit(f"{info.name} can be written by others ({info.mode:o})")
            owner = 1337 if info.name == "var/lib/anyam" else 0
            equal((info.uid, info.gid), (owner, owner), info.name)
        tar.extractall(root, numeric_owner=True)
    equal(entries["tmp"].mode, 0o1777, "tmp")
    # No executables but the program and its loader and libraries.
    programs = [name for name, info in entries.items() if info.isfile() and info.mode & 0o111]
    libraries = [name for name in programs if re.match(r"lib(64)?/", name)]
    equal(sorted(set(programs) - set(libraries)), [f"usr/local/bin/anyam-{image}"], "programs")
    for name in ("etc/passwd", "etc/group", IMAGES.CA_CERTIFICATES, "usr/share/doc/anyam/LICENSE"):
        if not entries[name].size:
            sys.exit(f"{name} is empty")
    size = sum(info.size for info in entries.values())
    if image == "proxy" and size >= MOST:
        sys.exit(f"the proxy's image has {size} bytes, {MOST} are allowed")
    return size


def in_image(root, config, arguments, user=None, namespace=False):
    """Runs the image's program in a chroot; what it prints."""
    user = user or config["User"]
    command = ["chroot", f"--userspec={user}", root, *config["Entrypoint"], *arguments]
    if namespace:
        command = ["unshare", "-n", "bash", "-c", " && ".join(
            shlex.join(map(str, command + [action])) for action in namespace)]
    environment = dict(setting.split("=", 1) for setting in config["Env"])
    # `chroot` itself is found by this PATH, the program by its absolute path.
    environment["PATH"] += ":" + os.environ["PATH"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{command}: {done.stderr}")
    return done.stdout


def check_program(image, root, config):
    printed = in_image(root, config, ["--version"])
    equal(printed.strip(), f"anyam-{image} {IMAGES.version()}", "--version")
    if image != "proxy":
        return
    rules = in_image(root, config, ["redirect", "--dry-run", "--exclude-outbound-ports", "443"])
    if "redirect to :15001" not in rules or "443" not in rules:
        sys.exit(f"redirect --dry-run: {rules}")
    # As an init container: root, NET_ADMIN, no nft and no ip in the image.
    in_image(root, config, ["redirect"], user="0:0", namespace=["--ipv6=true", "--check", "--remove"])


def check_dockerfile(image):
    """Docker's image starts as ours does; its files are laid out by the same script."""
    text = (TREE / f"deploy/images/{image}.Dockerfile").read_text().replace("\\\n", "")
    build, run = re.split(r"^FROM scratch$", text, flags=re.M)
    if f"images.py rootfs {image} /rootfs" not in build or "COPY --from=build /rootfs/ /\n" not in run:
        sys.exit(f"{image}.Dockerfile does not copy what images.py lays out")
    lines = [line.split(None, 1) for line in run.strip().splitlines() if not line.startswith("COPY")]
    said = {instruction: value for instruction, value in lines}
    wanted = IMAGES.settings(image)
    equal(said.pop("USER"), wanted["User"], "USER")
    equal(said.pop("ENV").split(), wanted["Env"], "ENV")
    equal(json.loads(said.pop("ENTRYPOINT")), wanted["Entrypoint"], "ENTRYPOINT")
    equal(said.pop("WORKDIR"), wanted["WorkingDir"], "WORKDIR")
    labels = dict(label.split("=", 1) for label in shlex.split(said.pop("LABEL")))
    # Labels about the commit are given by the build.
    commits = {"org.opencontainers.image.created", "org.opencontainers.image.revision"}
    equal(labels, {name: value for name, value in IMAGES.labels(image).items() if name not in commits}, "LABEL")
    equal(said, {}, "other instructions")


def main():
    proxy, control = sys.argv[1:]
    for image, binary in (("proxy", proxy), ("control", control)):
        with tempfile.TemporaryDirectory() as folder:
            folder = Path(folder)
            archive = make(image, binary, folder / "one.tar")
            equal(hashlib.sha256(make(image, binary, folder / "two.tar")).hexdigest(),
                  hashlib.sha256(archive).hexdigest(), f"{image}: made twice")
            config, layer = unpack(image, archive)
            root = folder / "root"
            root.mkdir()
            root.chmod(0o755)
            folder.chmod(0o755)
            size = check_contents(image, layer, root)
            check_program(image, root, config)
            check_dockerfile(image)
            print(f"{image}: {len(archive) / 1e6:.1f} MB packed, {size / 1e6:.1f} MB unpacked")


if __name__ == "__main__":
    main()
