"""What the campaign, and looking for what it should try, found wrong; each with the test that would find it again."""

# ruff: noqa: E501 - sentences for people, one a line

from __future__ import annotations

from typing import Final

_TESTS: Final = "tests/test_failures.py::"

FOUND: Final = [
    {"what": what, "now": now, "test": _TESTS + test}
    for what, now, test in (
        (
            "Killed while it wrote, in a container, where the process number is the same each time: every later run with"
            ' that output failed with "file exists".',
            "Whoever writes holds a lock; the next run takes away what nobody holds any more.",
            "test_what_a_killed_process_of_the_same_number_left_is_no_obstacle",
        ),
        (
            "Killed, or ended by kill or by closing the terminal, it left its unfinished file beside the output for good.",
            "kill and a closed terminal clean up like Ctrl-C (status 143, 129); after SIGKILL the next run does.",
            "test_killed_it_leaves_nothing_that_the_next_run_trips_over",
        ),
        (
            "Killed while it replaced tables of Parquet, it left the old ones in a hidden folder, and the next run said"
            " that the folder is not empty, or wrote beside it.",
            "The next run puts the tables back and takes the folder away.",
            "test_tables_that_were_about_to_be_replaced_come_back",
        ),
        (
            "Killed while it installed the profile: the next run took the half of it for somebody else's, or for changed,"
            " and wanted --force.",
            "A profile whose every file is as it was or as it is to be is finished.",
            "test_a_profile_that_was_half_written_is_finished",
        ),
        (
            "simulate on a full disk left half a capture under its name, and the other files of it.",
            "All its files get their names, or none does.",
            "test_a_simulation_that_finds_no_room_leaves_nothing",
        ),
        (
            "Killed while it redacted standard input, it left a readable copy of the capture in the temporary folder, and"
            " messages named that file.",
            "On Linux that copy is in no folder; messages speak of standard input.",
            "test_what_is_wrong_with_standard_input_is_told_of_that",
        ),
        (
            "Killed, or ended by kill, with --jobs, it left its worker processes behind for ever.",
            "They end with it.",
            "test_workers_end_with_the_process_that_wants_their_work",
        ),
        (
            "An error or Ctrl-C at the moment when a worker sent its result: the command printed its line and never ended.",
            "It ends.",
            "test_half_a_result_of_a_worker_is_not_waited_for",
        ),
        (
            "Where no process could be started (a limit on processes or open files, no /dev/shm) --jobs ended with"
            ' "standard output: resource temporarily unavailable", an internal error, or never.',
            "One process does the work, and says so.",
            "test_where_no_process_can_be_started_one_does_the_work_and_says_so",
        ),
        (
            "Ctrl-C while the program was still being loaded, or a moment before its end, printed a traceback.",
            "Nothing is printed.",
            "test_asked_to_end_while_it_is_loaded_it_says_nothing",
        ),
        (
            "Ctrl-C at a moment when Python drops exceptions printed one, and the program went on.",
            "It is asked again a moment later.",
            "test_a_request_to_end_is_not_lost_where_python_drops_exceptions",
        ),
        (
            "Too little memory was an internal error.",
            "One line that says so, status 2.",
            "test_too_little_memory_is_one_line",
        ),
        (
            "No folder for temporary files, or one without room, was told of standard output.",
            "The line names the folder, or TMPDIR.",
            "test_no_room_for_what_is_read_twice_names_the_folder",
        ),
        (
            "A library that could not be loaded, for want of memory or open files or because it is damaged, was an"
            " internal error.",
            "One line that names it, status 2.",
            "test_a_library_that_cannot_be_loaded_is_one_line",
        ),
        (
            "With standard error on a full disk, an error line was a traceback with status 1.",
            "Status 2.",
            "test_standard_error_without_room_changes_no_status",
        ),
        (
            "A capture at a URL whose storage failed in mid-file with an error of its own kind was an internal error.",
            "The report covers what came, and says why there is no more.",
            "test_remote_storage_that_fails_in_mid_file_ends_the_file_there",
        ),
        (
            "The line about an internal error named neither the packet nor the place in the code; that of redact spelled"
            " out what it had found of the network.",
            "One line with both, for posting; nothing of the capture.",
            "test_a_fault_names_the_packet_and_the_line_and_nothing_of_the_capture",
        ),
    )
]
