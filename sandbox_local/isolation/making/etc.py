"""What lies in a box's /etc: our own account and host files, and what programs need of the host's.

Of the host's /etc a box gets what is named here, and of that only what every user of the host may read: never
keys, passwords, machine identity, or configuration that people put tokens into.
"""

from __future__ import annotations

import glob
import os
import stat

from sandbox_local.isolation import tree
from sandbox_local.isolation.ids import Ids

_FROM_HOST = (
    *("*-release", "adduser.conf", "alternatives", "bindresvport.blacklist", "ca-certificates"),
    *("ca-certificates.conf", "crypto-policies", "debian_version", "default/locale", "default/useradd"),
    *("deluser.conf", "ethertypes", "fonts", "gai.conf", "glvnd", "groff", "host.conf", "ImageMagick-*"),
    *("inputrc", "java*", "ld-musl-*.path", "ld.so.cache", "ld.so.conf", "ld.so.conf.d", "libaudit.conf"),
    *("locale.alias", "locale.conf", "localtime", "login.defs", "magic", "magic.mime", "manpath.config"),
    *("mime.types", "networks", "OpenCL", "pam.conf", "pam.d", "perl", "pki/ca-trust"),
    *("pki/java", "pki/tls/cert.pem", "pki/tls/certs", "pki/tls/openssl.cnf", "protocols", "python3*"),
    *("R", "rpc", "security/access.conf", "security/faillock.conf", "security/group.conf"),
    *("security/limits.conf", "security/namespace.conf", "security/pam_env.conf"),
    *("security/pwquality.conf", "security/time.conf", "services", "sgml", "shells", "ssl/cert.pem"),
    *("ssl/certs", "ssl/openssl.cnf", "terminfo", "texmf", "timezone", "vim", "xattr.conf", "xml"),
)

_SYSTEM_USERS = (  # the same numbers everywhere in the Debian family; name, uid, gid, home
    ("daemon", 1, 1, "/usr/sbin"),
    ("bin", 2, 2, "/bin"),
    ("sys", 3, 3, "/dev"),
    ("sync", 4, 65534, "/bin"),
    ("games", 5, 60, "/usr/games"),
    ("man", 6, 12, "/var/cache/man"),
    ("lp", 7, 7, "/var/spool/lpd"),
    ("mail", 8, 8, "/var/mail"),
    ("news", 9, 9, "/var/spool/news"),
    ("uucp", 10, 10, "/var/spool/uucp"),
    ("proxy", 13, 13, "/bin"),
    ("www-data", 33, 33, "/var/www"),
    ("backup", 34, 34, "/var/backups"),
    ("list", 38, 38, "/var/list"),
    ("irc", 39, 39, "/run/ircd"),
    ("_apt", 42, 65534, "/nonexistent"),
    ("nobody", 65534, 65534, "/nonexistent"),
)

_GROUPS = (
    *("root:0", "daemon:1", "bin:2", "sys:3", "adm:4", "tty:5", "disk:6", "lp:7", "mail:8", "news:9"),
    *(
        "uucp:10",
        "man:12",
        "proxy:13",
        "kmem:15",
        "dialout:20",
        "fax:21",
        "voice:22",
        "cdrom:24",
        "floppy:25",
    ),
    *("tape:26", "sudo:27", "audio:29", "dip:30", "www-data:33", "backup:34", "operator:37", "list:38"),
    *(
        "irc:39",
        "src:40",
        "shadow:42",
        "utmp:43",
        "video:44",
        "sasl:45",
        "plugdev:46",
        "staff:50",
        "games:60",
    ),
    *("users:100", "nogroup:65534", "user:1000"),
)
_MEMBERS = {"sudo": "user"}

_SHADOW_GROUP = 42

# Read at the start of every command: Bash knows its EUID, so nothing has to be forked to ask for it.
_PROFILE = """\
if [ "${EUID:-$(id -u)}" -eq 0 ]; then
  PATH="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
else
  PATH="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/games:/usr/games"
fi
export PATH
if [ -n "$BASH" ] && [ "$BASH" != /bin/sh ] && [ -r /etc/bash.bashrc ]; then
  . /etc/bash.bashrc
fi
for part in /etc/profile.d/*.sh; do
  [ -r "$part" ] && . "$part"
done
unset part
"""

_BASHRC = """\
[ -z "$PS1" ] && return
shopt -s checkwinsize
PS1='\\u@\\h:\\w\\$ '
"""

HOME_FILES = {
    ".bashrc": "# Read by interactive shells.\n",
    ".profile": '[ -n "$BASH" ] && [ -r ~/.bashrc ] && . ~/.bashrc\n',
}

_NSSWITCH = """\
passwd:     files
group:      files
shadow:     files
gshadow:    files
hosts:      files dns
networks:   files
protocols:  db files
services:   db files
ethers:     db files
rpc:        db files
"""

SUDOERS = """\
Defaults env_reset
Defaults secure_path="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
root ALL=(ALL:ALL) ALL
user ALL=(ALL:ALL) NOPASSWD: ALL
@includedir /etc/sudoers.d
"""


def build(etc: str, host_etc: str, ids: Ids) -> None:
    """Make a directory with everything that is the same in every box.

    Args:
        etc: The directory.
        host_etc: The host's /etc.
        ids: The ids of the box.
    """
    for pattern in _FROM_HOST:
        for source in glob.glob(f"{host_etc}/{pattern}"):
            _copy(source, etc + source[len(host_etc) :], ids)
    for name, content in _own_files().items():
        tree.write(f"{etc}/{name}", content.encode(), ids)
    for name in ("shadow", "gshadow"):
        ids.chown(f"{etc}/{name}", 0, _SHADOW_GROUP)
        os.chmod(f"{etc}/{name}", 0o640)
    os.chmod(f"{etc}/sudoers", 0o440)
    for name in ("sudoers.d", "profile.d", "opt"):
        tree.make_directories(f"{etc}/{name}", ids)
    tree.link(f"{etc}/mtab", "../proc/self/mounts", ids)


def write_host_name(etc: str, hostname: str, ids: Ids) -> None:
    """Write what differs from box to box."""
    hosts = f"127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n127.0.1.1\t{hostname}\n"
    tree.write(f"{etc}/hosts", hosts.encode(), ids)
    tree.write(f"{etc}/hostname", f"{hostname}\n".encode(), ids)


def _own_files() -> dict[str, str]:
    users = [("root", 0, 0, "/root"), *_SYSTEM_USERS, ("user", 1000, 1000, "/home/user")]
    shell = {name: "/usr/sbin/nologin" for name, *_ in users}
    shell |= {"root": "/bin/bash", "user": "/bin/bash", "sync": "/bin/sync"}
    groups = [entry.split(":") for entry in _GROUPS]
    return {
        "passwd": "".join(f"{n}:x:{uid}:{gid}:{n}:{home}:{shell[n]}\n" for n, uid, gid, home in users),
        "shadow": "".join(f"{name}:*:19000:0:99999:7:::\n" for name, *_ in users),
        "group": "".join(f"{name}:x:{gid}:{_MEMBERS.get(name, '')}\n" for name, gid in groups),
        "gshadow": "".join(f"{name}:*::{_MEMBERS.get(name, '')}\n" for name, _ in groups),
        "resolv.conf": "",
        "nsswitch.conf": _NSSWITCH,
        "environment": "",
        "profile": _PROFILE,
        "bash.bashrc": _BASHRC,
        "sudoers": SUDOERS,
        **{f"skel/{name}": content for name, content in HOME_FILES.items()},
    }


def _copy(source: str, target: str, ids: Ids) -> None:
    """Copy what every user of the host may read; links are copied as links."""
    mode = os.lstat(source).st_mode
    if stat.S_ISLNK(mode):
        tree.link(target, os.readlink(source), ids)
    elif stat.S_ISDIR(mode) and mode & 0o005 == 0o005:
        tree.make_directories(target, ids)
        for name in os.listdir(source):
            _copy(f"{source}/{name}", f"{target}/{name}", ids)
    elif stat.S_ISREG(mode) and mode & 0o004:
        with open(source, "rb") as file:
            tree.write(target, file.read(), ids, mode=mode & 0o755)
