"""The command that runs a program in a cage: bubblewrap, or namespaces by `unshare`.

Inside there is no network, the system's programs and Python with its packages can be read and not
written, and the working directory is an empty file system in memory. Nothing of the user's home can
be seen, but for packages that lie there.
"""

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from calculator.errors import OptionError

WORK = "/mnt/data"
"""The working directory: where GLM-4 is told that files of its `python` tool lie."""

DISK_BYTES = 256 << 20
"""Size of the file system in memory that the cage writes to."""

SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib64", "/etc/alternatives", "/etc/ld.so.cache")
"""What programs need of the system."""

PACKAGES = ("site-packages", "dist-packages")

INSTALL = "install bubblewrap (apt install bubblewrap, dnf install bubblewrap)"

ENVIRONMENT = {
    "PATH": "/usr/bin:/bin:/usr/sbin:/sbin",
    "HOME": WORK,
    "LANG": "C.UTF-8",
    "MPLBACKEND": "agg",
    "OMP_NUM_THREADS": "1",
}

IN_NAMESPACES = """
set -e
root=$(mktemp -d)
mount -t tmpfs -o size=1m,mode=755 none "$root"
mkdir -p "$root/mnt/data" "$root/tmp" "$root/proc" "$root/dev" "$root/old"
for empty in mnt/data tmp; do mount -t tmpfs -o size=SIZE,mode=777 none "$root/$empty"; done
while [ "$1" != -- ]; do
    mkdir -p "$root$(dirname "$1")"
    if [ -L "$1" ]; then cp -P "$1" "$root$1"
    elif [ -d "$1" ]; then mkdir -p "$root$1"; mount --rbind "$1" "$root$1"
    else touch "$root$1"; mount --bind "$1" "$root$1"; fi
    [ -L "$1" ] || mount -o remount,bind,ro "$root$1"
    shift
done
shift
mount -t proc none "$root/proc"
for device in null zero urandom; do
    touch "$root/dev/$device"; mount --bind "/dev/$device" "$root/dev/$device"
done
cd "$root"
pivot_root . old
umount -l old
mount -o remount,ro /
cd /mnt/data
exec setpriv --bounding-set=-all --inh-caps=-all --no-new-privs -- "$@"
"""
"""Builds the cage's file system. Arguments: what is bound read-only, `--`, the command."""


def cage_command(program: Sequence[str]) -> list[str]:
    """Return the command that runs `program` in a cage. Raises OptionError without a cage."""
    for command in (_bubblewrap(program), _namespaces(program)):
        if command and _works(command[: len(command) - len(program)]):
            return command
    raise OptionError(f"the python tool needs a cage, and this machine gives none: {INSTALL}")


def package_directories() -> list[str]:
    """List where this Python has its packages: a `.pth` file may name places outside of its prefix,
    and a user's own packages lie in the home directory.

    Only directories that are for packages count: others hold programs of the user.
    """
    return [place for place in sys.path if Path(place).name in PACKAGES and Path(place).is_dir()]


def _visible() -> list[str]:
    """Return what is read-only in the cage: the system, and this Python with its packages."""
    python = {Path(sys.prefix), Path(sys.base_prefix), Path(sys.executable).resolve().parents[1]}
    places = [*SYSTEM, *map(str, sorted(python)), *package_directories()]
    outer = [place for place in places if Path(place).exists()]
    return [
        place
        for place in dict.fromkeys(outer)
        if not any(place != other and place.startswith(f"{other}/") for other in outer)
    ]


def _bubblewrap(program: Sequence[str]) -> list[str] | None:
    bwrap = shutil.which("bwrap")
    if bwrap is None:
        return None
    command = [bwrap, "--unshare-all", "--die-with-parent", "--new-session", "--clearenv"]
    for name, value in ENVIRONMENT.items():
        command += ["--setenv", name, value]
    for place in ("/tmp", WORK):  # first: an environment of Python may lie in /tmp
        command += ["--size", str(DISK_BYTES), "--tmpfs", place]
    for place in _visible():
        if Path(place).is_symlink():
            command += ["--symlink", str(Path(place).readlink()), place]
        else:
            command += ["--ro-bind", place, place]
    command += ["--proc", "/proc", "--dev", "/dev"]
    return [*command, "--remount-ro", "/", "--chdir", WORK, "--", *program]


def _namespaces(program: Sequence[str]) -> list[str] | None:
    tools = [shutil.which(tool) for tool in ("unshare", "setpriv", "pivot_root")]
    if not all(tools):
        return None
    script = IN_NAMESPACES.replace("SIZE", str(DISK_BYTES))
    return [
        *("env", "-i", *(f"{name}={value}" for name, value in ENVIRONMENT.items())),
        *(str(tools[0]), "--user", "--map-root-user", "--mount", "--net", "--ipc", "--uts"),
        *("--pid", "--fork", "--kill-child", "sh", "-c", script, "sh"),
        *(*_visible(), "--", *program),
    ]


def _works(prefix: Sequence[str]) -> bool:
    """Return whether a cage opens: kernels and containers may forbid what the programs need."""
    check = [*prefix, sys.executable, "-I", "-c", "pass"]
    return subprocess.run(check, capture_output=True, check=False).returncode == 0
