"""Every protection that tests claim, as a way to take it away: then the named test must fail."""

from __future__ import annotations

from typing import NamedTuple


class Protection(NamedTuple):
    """One protection.

    Attributes:
        name: What protects.
        file: Where, in sandbox_local.
        edits: What stands there, exactly once, and what weakens it.
        test: The test that must fail then.
    """

    name: str
    file: str
    edits: tuple[tuple[str, str], ...]
    test: str


_INSIDE = "tests/security/test_inside.py"
_TAKEN = "tests/security/test_exhaustion.py::test_what_one_sandbox_takes_the_others_and_the_host_still_have"
_FILTER = "tests/security/test_filter.py"
_REQUESTS = "tests/security/test_requests.py"
_MALFORMED = (
    "tests/unit/test_http_h1.py::test_malformed_request_is_answered_with_json_and_the_connection_closed"
)
_SECCOMP = "isolation/inside/seccomp.py"
_BOX = "isolation/making/box.py"
_ROOTFS = "isolation/making/rootfs.py"
_H1 = "http/h1_parser.py"
_H2 = "http/h2.py"


def _door(name: str, user: str = "root", kind: str = "root") -> str:
    return f"{_INSIDE}::test_doors_are_shut[{name}-{kind}-{user}]"


def _call(name: str, row: str) -> Protection:
    return Protection(f"filter: {name}", _SECCOMP, ((row, ""),), _door(f"call {name}"))


def _row(name: str, row: str) -> Protection:
    test = f"{_FILTER}::test_a_call_that_no_program_needs_is_denied[{name}]"
    return Protection(f"filter: {name}", _SECCOMP, ((row, ""),), test)


def _without(name: str, file: str, text: str, test: str, weakened: str = "pass") -> Protection:
    return Protection(name, file, ((text, weakened),), test)


_KERNEL = (
    _without(
        "the filter of commands",
        "isolation/inside/spawn.py",
        "syscalls.load_seccomp(self._filter)\n            become(user)",
        _door("call keyctl", "user"),
        "become(user)",
    ),
    _without(
        "the filter of commands where all users are one",
        "isolation/inside/spawn.py",
        "        syscalls.load_seccomp(self._filter)\n\n\ndef become",
        _door("call keyctl", "user", "unprivileged"),
        "\n\ndef become",
    ),
    _call("unshare user", '    "unshare": (272, 97),\n'),
    _call("keyctl", '    "keyctl": (250, 219),\n'),
    _call("io_uring_setup", '    "io_uring_setup": (425, 425),\n'),
    _call("userfaultfd", '    "userfaultfd": (323, 282),\n'),
    _call("open_tree", '    "open_tree": (428, 428),\n'),
    _call("fanotify_init", '    "fanotify_init": (300, 262),\n'),
    _row("mount", '    "mount": (165, 40),\n'),
    _row("bpf", '    "bpf": (321, 280),\n'),
    _row("open_by_handle_at", '    "open_by_handle_at": (304, 265),\n'),
    _row("init_module", '    "init_module": (175, 105),\n'),
    _without(
        "filter: clone",
        _SECCOMP,
        "_ANY_BIT, 0, 1, _NAMESPACES",
        _door("call clone user"),
        "_ANY_BIT, 0, 1, 0",
    ),
    _without(
        "filter: clone3", _SECCOMP, "(_EQUAL, 0, 1, _CLONE3)", _door("call clone3"), "(_EQUAL, 0, 1, 9999)"
    ),
    _without(
        "filter: programs of another architecture",
        _SECCOMP,
        "(_EQUAL, 1, 0, architecture.audit)",
        f"{_FILTER}::test_ordinary_calls_pass_and_other_numbers_do_not[x86_64]",
        "(_AT_LEAST, 1, 0, 0)",
    ),
    _without(
        "filter: x32",
        _SECCOMP,
        "(_AT_LEAST, 0, 1, _X32)",
        f"{_FILTER}::test_ordinary_calls_pass_and_other_numbers_do_not[x86_64]",
        "(_AT_LEAST, 0, 1, 0xFFFFFFFF)",
    ),
    _without(
        "filter: families of sockets",
        _SECCOMP,
        "(1, 2, 10, 16)",
        _door("socket packet"),
        "(1, 2, 10, 16, 17)",
    ),
    _without(
        "an agent that nobody may look into",
        _BOX,
        "    syscalls.set_dumpable(False)\n",
        "tests/live/test_isolation_boundary.py::"
        "test_the_environment_is_the_users_own_and_none_of_the_servers",
        "    syscalls.set_dumpable(True)\n",
    ),
    _without("bound of capabilities", _BOX, "    first.bound()\n", _door("socket raw"), ""),
    _without(
        "rights of helpers",
        "isolation/inside/spawn.py",
        "        syscalls.drop_unbounded_capabilities()\n",
        f"{_INSIDE}::test_helpers_have_no_more_rights_than_a_command[root]",
        "",
    ),
    _without(
        "filter of helpers",
        "isolation/inside/agent.py",
        "services.start_file_worker(self._spawner.confine)",
        f"{_INSIDE}::test_what_a_helper_executes_is_under_the_filter[root]",
        "services.start_file_worker(lambda: None)",
    ),
    Protection(
        "network namespace",
        _BOX,
        (("    | syscalls.CLONE_NEWNET\n", ""), ("    syscalls.loopback_up()\n", "")),
        _door("host port", "user"),
    ),
    _without(
        "IPC namespace",
        _BOX,
        "    | syscalls.CLONE_NEWIPC\n",
        "tests/live/test_doctor.py::test_everything_that_is_looked_at_holds",
        "",
    ),
    _without("masked files of /proc", _ROOTFS, '    "kallsyms",\n', _door("read /proc/kallsyms"), ""),
    _without(
        "no core files",
        "isolation/inside/spawn.py",
        "_limit(resource.RLIMIT_CORE, _NO_CORE),",
        _door("core size", "user"),
        "",
    ),
    _without(
        "ids of each box",
        "isolation/ids.py",
        "self._ranges[self._made % len(self._ranges)]",
        "tests/live/test_isolation_boundary.py::test_boxes_have_ids_files_ports_and_ipc_of_their_own",
        "self._ranges[0]",
    ),
    _without(
        "owners of user namespaces",
        "isolation/ids.py",
        "syscalls.change_user(ids.base)",
        "tests/security/test_exhaustion.py::"
        "test_terminals_and_watches_of_the_host_are_not_counted_for_its_root",
    ),
)

_BOUNDS = (
    _without("terminals of a box", _ROOTFS, ",max={_TERMINALS}", f"{_TAKEN}[root-terminals]", ""),
    _without(
        "commands are no more urgent than others",
        "isolation/inside/spawn.py",
        "        self._standing.fall_in()\n",
        "tests/live/test_limits_boxes.py"
        "::test_a_command_is_no_more_urgent_than_the_server_and_less_than_the_agent",
        "",
    ),
    _without("bytes of a box", _ROOTFS, "size={size},nr_inodes", f"{_TAKEN}[root-disk]", "nr_inodes"),
    _without("files of a box", _ROOTFS, ",nr_inodes={inodes}", f"{_TAKEN}[root-files]", ",nr_inodes=0"),
    _without(
        "inotify of a server without privileges",
        "isolation/making/zygote.py",
        "privilege.share_watches()",
        f"{_TAKEN}[unprivileged-inotify instances]",
    ),
    _without(
        "watches of a server without privileges",
        "isolation/making/privilege.py",
        'for kind in ("instances", "watches"):',
        f"{_TAKEN}[unprivileged-inotify watches]",
        'for kind in ("instances",):',
    ),
    _without(
        "memory of a box",
        "isolation/limits/settings.py",
        "memory = str(limits.memory_bytes)",
        "tests/live/test_limits_boxes.py::test_a_command_that_takes_too_much_memory_is_killed_and_nothing_else_is",
        "memory = str(limits.memory_bytes << 6)",
    ),
    _without(
        "processes of a box",
        "isolation/limits/settings.py",
        "limits.processes + _RESERVE",
        "tests/live/test_limits_boxes.py::test_all_users_of_a_box_together_have_a_bounded_number_of_processes",
        "limits.processes + 9999",
    ),
    _without(
        "open files end with their box",
        "envd/open_files.py",
        "os.dup2(nothing, fd, inheritable=False)",
        "tests/security/test_files.py::test_open_files_end_with_their_box",
    ),
)

_FILES = (
    _without(
        "files of the kernel",
        "isolation/files/writing.py",
        "if check_regular(os.fstat(fd), target).st_dev == self._made_up:",
        "tests/security/test_files.py::test_files_of_the_kernel_are_not_written_by_the_server[root]",
        "if False:",
    ),
    _without(
        "length of paths",
        "isolation/files/paths.py",
        'if len(raw) > _MAX_NAME and (len(raw) > _MAX_PATH or max(map(len, raw.split(b"/"))) > _MAX_NAME):',
        f"{_REQUESTS}::test_what_is_no_path_is_refused_in_every_call[Stat-fields0-1]",
        "if False:",
    ),
    _without(
        "homes of other users",
        "isolation/files/paths.py",
        'raise ValueError("cannot expand user-specific home dir")',
        f"{_REQUESTS}::test_what_is_no_path_is_refused_over_http",
    ),
    _without(
        "regular files only",
        "isolation/files/paths.py",
        "if not stat.S_ISREG(info.st_mode):",
        "tests/unit/test_envd_file_worker.py::test_only_regular_files_are_opened",
        "if False:",
    ),
)

_NETWORK = (
    _without(
        "addresses that are never reached",
        "egress/policy.py",
        "if any(address in network for network in _NEVER):",
        "tests/unit/test_egress_policy.py::test_what_is_never_reached_is_not_even_when_it_is_named",
        "if False:",
    ),
    _without(
        "this machine's own addresses",
        "egress/policy.py",
        "if ours:",
        "tests/unit/test_egress_policy.py::test_this_machine_is_reached_when_its_one_address_is_named",
        "if False:",
    ),
)

_TOKENS = (
    _without(
        "key of the control plane",
        "control/api.py",
        "if not hmac.compare_digest(given.encode(), self._api_key):",
        f"{_REQUESTS}::test_the_control_plane_wants_its_key_from_everybody",
        "if False:",
    ),
    _without(
        "token of a sandbox",
        "envd/access.py",
        'if not _equal(request.headers.get("x-access-token", ""), token):',
        f"{_REQUESTS}::test_the_token_of_one_sandbox_opens_no_other",
        "if False:",
    ),
    _without(
        "token for files",
        "envd/access.py",
        "if not _equal(given, token):",
        f"{_REQUESTS}::test_the_token_of_one_sandbox_opens_no_other",
        "if False:",
    ),
    _without(
        "signatures",
        "envd/access.py",
        "if not _equal(signed, signature(path, operation, user, token, expiration)):",
        f"{_REQUESTS}::test_a_signature_is_good_for_what_it_says_only",
        "if False:",
    ),
    _without(
        "expiration of signatures",
        "envd/access.py",
        "if expiration is not None and expiration < int(now):",
        f"{_REQUESTS}::test_a_signature_is_good_for_what_it_says_only",
        "if False:",
    ),
    _without(
        "paths of an orchestrator",
        "plane.py",
        "if request.path in _PRIVATE:",
        "tests/unit/test_control_plane.py::test_what_an_orchestrator_asks_of_envd_is_not_open_to_clients",
        "if False:",
    ),
)

_HTTP = (
    _without("one Host", _H1, "hosts > 1 or ", f"{_MALFORMED}[two hosts]", ""),
    _without(
        "target and Host",
        _H1,
        "if authority is not None and",
        f"{_MALFORMED}[target of another host]",
        "if False and",
    ),
    _without(
        "length or chunks",
        _H1,
        'if lengths or version != "1.1":',
        f"{_MALFORMED}[chunks in http 1.0]",
        "if False:",
    ),
    _without(
        "known codings",
        _H1,
        'if [coding.lower() for coding in codings] != ["chunked"]:',
        f"{_MALFORMED}[unknown coding]",
        "if False:",
    ),
    _without(
        "bytes of header fields",
        _H1,
        "if self._field_bytes > self._limits.header_bytes:",
        f"{_MALFORMED}[many bytes of headers]",
        "if False:",
    ),
    _without(
        "number of header fields",
        _H1,
        "if len(self._fields) >= self._limits.header_fields:",
        f"{_MALFORMED}[many headers]",
        "if False:",
    ),
    _without(
        "length of targets",
        _H1,
        "if len(self._target) > self._limits.target_bytes:",
        f"{_MALFORMED}[long target]",
        "if False:",
    ),
    _without(
        "pipelined requests",
        "http/h1.py",
        "if len(self._waiting) >= self._limits.pipelined:",
        "tests/unit/test_http_h1.py::test_more_pipelined_requests_than_the_limit_are_refused_after_the_others",
        "if False:",
    ),
    _without(
        "header fields of HTTP/2",
        _H2,
        "self._connection.decoder.max_header_list_size = limits.header_bytes",
        "tests/unit/test_http_h2.py::test_many_bytes_of_headers_end_the_connection",
        "self._connection.decoder.max_header_list_size = 1 << 30",
    ),
    _without(
        "methods of HTTP/2",
        _H2,
        'if not _METHOD.fullmatch(pseudo[":method"]):',
        "tests/unit/test_http_h2.py::test_method_that_would_take_a_request_line_apart_is_refused",
        "if False:",
    ),
    _without(
        "targets of HTTP/2",
        _H2,
        "if not _TARGET.fullmatch(target):",
        "tests/unit/test_http_h2.py::test_request_that_goes_too_far_is_refused",
        "if False:",
    ),
    _without(
        "size of bodies",
        "http/body.py",
        "            if size > limit:\n                raise BodyTooLarge(limit)\n",
        "tests/unit/test_http_message.py::test_body_longer_than_the_limit_is_refused",
        "",
    ),
    _without(
        "size of messages",
        "rpc/envelope.py",
        "if length > MESSAGE_BYTES:",
        "tests/unit/test_rpc_envelope.py::test_envelope_that_announces_too_much_is_refused_before_it_is_read",
        "if False:",
    ),
    _without(
        "size of packed messages",
        "rpc/payload.py",
        "if len(plain) > MESSAGE_BYTES:",
        "tests/unit/test_rpc_envelope.py::test_gzip_is_undone_within_bounds",
        "if False:",
    ),
    _without(
        "descriptors nobody announced",
        "isolation/wire.py",
        "if len(self._fds) != self._fd_count and not self._lost:",
        "tests/unit/test_isolation_wire.py::test_descriptors_nobody_announced_are_refused_and_closed",
        "if False:",
    ),
)

_BOUNDED = "tests/security/test_bounds.py"
_PARTS = (
    _without(
        "token for ports",
        "plane.py",
        "if given is None or not hmac.compare_digest(given.encode(), wanted.encode()):",
        f"{_REQUESTS}::test_closed_ports_want_their_own_token",
        "if False:",
    ),
    _without(
        "time of heads",
        "http/h1.py",
        "if self._parser.in_head and not self._deaf:",
        f"{_BOUNDED}::test_a_head_that_drips_is_refused",
        "if False:",
    ),
    _without(
        "bytes outside of messages",
        _H1,
        "if self._unframed > self._limits.header_bytes + self._limits.target_bytes:",
        f"{_BOUNDED}::test_bytes_outside_of_messages_are_bounded",
        "if False:",
    ),
    _without(
        "resets of HTTP/2",
        _H2,
        "if len(self._resets) > self._limits.h2_resets and now - self._resets[0] < _RESET_SECONDS:",
        f"{_BOUNDED}::test_resets_are_counted",
        "if False:",
    ),
    _without(
        "lines of answers",
        "http/exchange.py",
        'if "\\r" in value or "\\n" in value or "\\0" in value:',
        f"{_BOUNDED}::test_no_field_of_an_answer_breaks_out_of_its_line",
        "if False:",
    ),
    _without(
        "size of frames from a box",
        "isolation/wire.py",
        "if self._size > self._max_body or self._fd_count > MAX_FDS:",
        f"{_BOUNDED}::test_frames_of_a_box_are_bounded",
        "if False:",
    ),
    _without(
        "header of parts",
        "envd/multipart.py",
        "if len(self._buffer) >= _MAX_HEADER:",
        f"{_BOUNDED}::test_the_header_of_a_part_is_bounded",
        "if False:",
    ),
)

PROTECTIONS = (*_KERNEL, *_BOUNDS, *_FILES, *_NETWORK, *_TOKENS, *_HTTP, *_PARTS)
