"""Which rows of the protocol the official package is tested on, and by what; `reason` where it is not."""

from __future__ import annotations

from typing import NamedTuple


class Row(NamedTuple):
    """A row: the names of tests in this package, or the reason why there is none."""

    tests: tuple[str, ...] = ()
    reason: str = ""


def by(*tests: str) -> Row:
    """A row with tests."""
    return Row(tests)


def not_here(reason: str) -> Row:
    """A row without."""
    return Row(reason=reason)


_NO_SERVICE = "it is about E2B's own hosts, which no test may reach"
_SERVER = "clients can't make it happen; the server's own tests and tests/fidelity do"

ROWS: dict[str, Row] = {
    "1 addresses from the environment": by("test_info_tells_what_was_asked_for"),
    "1 addresses from options": by("test_addresses_are_given_as_options"),
    "1 shared host by header fields": by("test_info_tells_what_was_asked_for"),
    "1 get_host": by("test_ports_are_reached_by_host"),
    "1 domains of E2B": not_here(_NO_SERVICE),
    "1 debug mode": not_here("it makes no requests, or to fixed ports of this machine"),
    "1 MCP": by("test_what_one_machine_cannot_do_is_said"),
    "1 key that is wrong": by("test_a_key_or_a_template_that_is_wrong_is_told"),
    "2 not found": by("test_calls_to_what_has_ended_say_so"),
    "2 port is not open": by("test_closed_ports_want_the_token"),
    "2 traffic token": by("test_closed_ports_want_the_token"),
    "2 auto-resume": by("test_a_request_resumes_what_resumes_by_itself"),
    "2 WebSocket and HTTP": by("test_ports_are_reached_by_host"),
    "2 private routes of envd": not_here(_SERVER),
    "3 gRPC": not_here("the official package speaks Connect alone; grpcio is tested with the SDK"),
    "4 unary calls": by("test_directories_are_made_listed_and_removed"),
    "4 streams": by("test_a_background_command_is_followed_fed_and_ended"),
    "4 malformed calls": not_here(_SERVER),
    "5 AuthenticationException": by(
        "test_a_key_or_a_template_that_is_wrong_is_told", "test_ends_of_commands_are_told_apart"
    ),
    "5 SandboxNotFoundException": by("test_a_key_or_a_template_that_is_wrong_is_told"),
    "5 SandboxNotRunningException": by("test_calls_to_what_has_ended_say_so"),
    "5 kill and pause give False": by("test_kill_is_told_once", "test_pause_and_connect"),
    "5 InvalidArgumentException": by(
        "test_files_are_read_in_every_form", "test_ends_of_commands_are_told_apart"
    ),
    "5 FileNotFoundException": by("test_files_are_read_in_every_form"),
    "5 NotFoundException": by("test_a_command_is_connected_to_while_it_runs_and_after"),
    "5 TimeoutException": by("test_ends_of_commands_are_told_apart"),
    "5 CommandExitException": by("test_ends_of_commands_are_told_apart"),
    "5 NotEnoughSpaceException": by("test_a_full_disk_is_told"),
    "5 SandboxException and VolumeException of 501": by("test_what_one_machine_cannot_do_is_said"),
    "5 RateLimitException": not_here("500 sandboxes would have to live; the server's own tests do it"),
    "5 ServiceBusyException": not_here("the machine would have to be out of processes"),
    "5 SandboxUnreachableException": not_here(
        "the server's envd is part of it and can't be unreachable alone"
    ),
    "5 GuestUnresponsiveException": not_here(
        "the local server has no guest agent that can hang apart from it"
    ),
    "6 Start with every option": by("test_a_command_has_every_option"),
    "6 environment": by("test_a_command_has_every_option"),
    "6 user and cwd": by("test_a_command_has_every_option", "test_ends_of_commands_are_told_apart"),
    "6 missing program": by("test_ends_of_commands_are_told_apart"),
    "6 timeout ends the tree": by("test_ends_of_commands_are_told_apart"),
    "6 output": by("test_output_of_any_size_and_bytes_arrives"),
    "6 client disconnects": by("test_a_client_that_leaves_leaves_the_command_running"),
    "6 Connect": by("test_a_command_is_connected_to_while_it_runs_and_after"),
    "6 List": by("test_a_background_command_is_followed_fed_and_ended"),
    "6 SendInput and CloseStdin": by("test_a_background_command_is_followed_fed_and_ended"),
    "6 StreamInput": by("test_input_is_streamed"),
    "6 SendSignal": by("test_a_client_that_leaves_leaves_the_command_running"),
    "6 pty and Update": by("test_a_terminal_is_made_sized_fed_and_killed"),
    "6 many at once": by("test_many_commands_run_side_by_side"),
    "6 tags": not_here("the package sets none; tests/fidelity does"),
    "6 keepalive": not_here("the package asks for one in 50 s; tests/fidelity asks for less"),
    "7 paths and users": by("test_files_are_read_in_every_form", "test_users_decide_homes_and_owners"),
    "7 Stat and EntryInfo": by("test_entries_tell_all"),
    "7 MakeDir, Move, ListDir, Remove": by("test_directories_are_made_listed_and_removed"),
    "7 watchers, polled and streamed": by("test_a_directory_is_watched"),
    "7 recursive and with entries": by("test_a_tree_is_watched_with_entries"),
    "7 errors of watching": by("test_what_is_no_directory_is_not_watched"),
    "7 network mounts": not_here("a sandbox can mount none"),
    "8 GET /health": by("test_kill_is_told_once"),
    "8 GET /files": by("test_files_are_read_in_every_form"),
    "8 gzip both ways": by("test_files_are_read_in_every_form", "test_files_are_written_in_every_form"),
    "8 POST /files": by("test_files_are_written_in_every_form", "test_a_file_is_written_piece_by_piece"),
    "8 metadata": by("test_metadata_stays_with_a_file"),
    "8 no space": by("test_a_full_disk_is_told"),
    "8 signed links": by("test_signed_links_are_fetched"),
    "8 unsecured": by("test_an_unsecured_sandbox_has_plain_links_and_needs_no_token"),
    "8 POST /files/compose": not_here("the package has no call for it; tests/fidelity has"),
    "8 /init": not_here("it is the orchestrator's, and closed to clients"),
    "9 create": by("test_info_tells_what_was_asked_for", "test_a_command_has_every_option"),
    "9 Idempotency-Key": by("test_an_idempotency_key_makes_one_sandbox"),
    "9 template by name, tag and id": by("test_a_template_is_named_in_every_way"),
    "9 unknown template": by("test_a_key_or_a_template_that_is_wrong_is_told"),
    "9 lifecycle": by(
        "test_a_request_resumes_what_resumes_by_itself", "test_a_timeout_pauses_what_is_made_so"
    ),
    "9 GET": by("test_info_tells_what_was_asked_for"),
    "9 connect": by("test_timeouts_are_set_and_only_extended_by_connect", "test_pause_and_connect"),
    "9 timeout": by("test_timeouts_are_set_and_only_extended_by_connect", "test_a_timeout_of_zero_ends_it"),
    "9 pause and kill": by("test_pause_and_connect", "test_kill_is_told_once"),
    "9 fork, snapshots, filesystem pause, cold boot": by("test_what_one_machine_cannot_do_is_said"),
    "9 metrics": by("test_metrics_are_measured"),
    "9 listing": by("test_lists_are_filtered_and_paged"),
    "9 closed ports": by("test_closed_ports_want_the_token"),
    "9 network rules": by("test_rules_of_the_network_are_told_and_replaced_as_a_whole"),
    "9 internet access": by("test_the_network_lets_out_what_the_rules_say"),
    "9 refreshes, resume, logs": not_here("the package has no call for them; tests/fidelity has"),
    "9 volumes": by("test_what_one_machine_cannot_do_is_said"),
    "9 IAM": not_here("one machine issues no identity tokens; the refusal is in tests of the server"),
    "11 0.1.4 recursive watch, 0.6.3 entries": by("test_a_tree_is_watched_with_entries"),
    "11 0.3.0 no input": by("test_nothing_is_refused_for_the_version_of_envd"),
    "11 0.4.0 default user": by("test_a_command_has_every_option"),
    "11 0.5.2 CloseStdin": by("test_a_background_command_is_followed_fed_and_ended"),
    "11 0.5.7 octet-stream": by("test_files_are_written_in_every_form"),
    "11 0.6.2 metadata": by("test_metadata_stays_with_a_file"),
    "11 0.6.4 network mounts": by("test_nothing_is_refused_for_the_version_of_envd"),
    "11 0.6.13 is claimed": by("test_nothing_is_refused_for_the_version_of_envd"),
}
