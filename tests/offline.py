"""Run a command without any network but loopback: python tests/offline.py COMMAND.

Uses an empty network namespace (Linux, as root or with user namespaces). Where that
is not to be had the command runs with HF_HUB_OFFLINE=1 alone, and this says so.
"""

import ctypes
import fcntl
import os
import socket
import struct
import sys

CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000
SIOCSIFFLAGS, IFF_UP = 0x8914, 1


def cut_network() -> str:
    """Return "" once only loopback is left, else why that was not possible."""
    if sys.platform != "linux":
        return f"no network namespaces on {sys.platform}"
    libc = ctypes.CDLL(None, use_errno=True)
    user, group = os.getuid(), os.getgid()
    flags = CLONE_NEWNET | (CLONE_NEWUSER if user else 0)
    if libc.unshare(flags):
        return os.strerror(ctypes.get_errno())
    if user:  # keep our own user id inside the new user namespace
        for file, text in (
            ("setgroups", "deny"),
            ("uid_map", f"{user} {user} 1"),
            ("gid_map", f"{group} {group} 1"),
        ):
            with open(f"/proc/self/{file}", "w") as handle:
                handle.write(text)
    with socket.socket() as handle:
        fcntl.ioctl(handle, SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", IFF_UP))
    return ""


if __name__ == "__main__":
    problem = cut_network()
    if problem:
        print(f"WARNING: the network could not be cut ({problem}).", file=sys.stderr)
    else:
        print("Network: loopback only.")
    sys.stdout.flush()
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.execvp(sys.argv[1], sys.argv[1:])
