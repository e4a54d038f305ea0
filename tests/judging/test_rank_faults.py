"""What ranks posted, made up: when they cannot go on, which rank it is, and that others may."""

from msgspec.structs import replace

from perfsuite.judging.rank_faults import HANG_S, Posting, fault

BUSY = Posting(doing="test_step_time[bf16]", entered=7, place="train.py:40 (step)")
WAITS = replace(BUSY, unmet_s=301.0, stands_s=301.0)
BEHIND = replace(WAITS, entered=6, place="train.py:33 (load)")
BOOM = "RuntimeError: boom"


def test_ranks_at_work_go_on() -> None:
    assert fault([BUSY, BUSY]) is None
    assert fault([BUSY, replace(BUSY, heard_s=19.0)]) is None


def test_a_rank_that_is_silent_is_gone() -> None:
    assert fault([BUSY, replace(BUSY, heard_s=21.0)]) == (
        "rank 1 of 2 has not been heard of for 21 s, in test_step_time[bf16]: it was killed,"
        " its machine is gone, or it lets no thread run"
    )


def test_a_rank_that_ended_before_it_said_what_it_does_is_told_by_what_rank_0_does() -> None:
    line = fault([BUSY, replace(BUSY, doing="", heard_s=21.0)])
    assert line is not None
    assert ", in test_step_time[bf16]: " in line


def test_several_that_are_gone_are_one_line() -> None:
    gone = replace(BUSY, heard_s=22.0)
    assert fault([BUSY, *[gone] * 6, BUSY]) == (
        "ranks 1, 2, 3, 4, ... of 8 have not been heard of for 22 s, in test_step_time[bf16]:"
        " killed, or a machine is gone"
    )


def test_a_rank_that_failed_while_others_wait_in_a_collective_ends_all() -> None:
    failed = replace(BUSY, failed=BOOM, failed_s=11.0, unmet_s=12.0)
    others = replace(BUSY, unmet_s=12.0)
    line = "rank 1 of 2 failed in test_step_time[bf16], and the others waited for it: " + BOOM
    assert fault([others, failed]) == line
    assert fault([others, replace(failed, failed_s=9.0)]) is None


def test_the_first_that_failed_is_the_cause() -> None:
    first = replace(BUSY, failed=BOOM, failed_s=12.0, unmet_s=12.0)
    second = replace(first, failed="it lost its connection", failed_s=11.0)
    line = fault([second, first])
    assert line is not None
    assert line.startswith("rank 1 of 2 failed")


def test_who_failed_for_one_that_is_gone_is_not_the_cause() -> None:
    lost = replace(BUSY, failed="RuntimeError: Connection closed by peer", failed_s=11.0)
    lost = replace(lost, unmet_s=11.0)
    assert fault([lost, replace(BUSY, heard_s=19.0)]) is None  # not yet
    line = fault([lost, replace(BUSY, heard_s=21.0)])
    assert line is not None
    assert line.startswith("rank 1 of 2 has not been heard of")


def test_what_rank_0_does_for_all_is_waited_for() -> None:
    failed = replace(BUSY, failed=BOOM, failed_s=400.0, unmet_s=400.0, stands_s=400.0)
    confirms = replace(BUSY, unmet_s=0.0)
    assert fault([confirms, failed]) is None
    assert fault([confirms, WAITS]) is None
    assert fault([replace(confirms, unmet_s=5.0), failed]) is None  # it has just come back


def test_a_rank_that_does_not_come_to_a_meeting_is_told_with_its_place() -> None:
    assert fault([WAITS, BEHIND]) == (
        "rank 1 of 2 stands in train.py:33 (load), in test_step_time[bf16], and the others have"
        " waited for it for 301 s"
    )
    assert fault([replace(WAITS, unmet_s=299.0), BEHIND]) is None


def test_a_rank_that_started_fewer_collectives_is_behind() -> None:
    ahead = replace(WAITS, collectives=10)
    line = fault([ahead, replace(WAITS, collectives=9, place="data.py:5 (read)"), ahead])
    assert line is not None
    assert line.startswith("rank 1 of 3 stands in data.py:5 (read), in ")


def test_where_nobody_is_behind_all_places_are_told() -> None:
    assert fault([WAITS, replace(WAITS, place="train.py:50 (save)")]) == (
        "none of 2 ranks went on for 301 s, in test_step_time[bf16]: rank 0 stands in"
        " train.py:40 (step), rank 1 stands in train.py:50 (save)"
    )


def test_ranks_that_all_move_are_at_work_however_long() -> None:
    trains = replace(WAITS, unmet_s=4000.0, stands_s=0.1)
    assert fault([trains, trains]) is None
    # One that turns in a circle while the other waits for it is none of these.
    line = fault([replace(WAITS, collectives=2, unmet_s=4000.0, stands_s=4000.0), trains])
    assert line is not None
    assert line.startswith("rank 1 of 2 ")


def test_who_met_rarely_before_may_take_ten_times_as_long() -> None:
    slow = replace(WAITS, longest_s=HANG_S / 5)
    assert fault([slow, BEHIND]) is None
    assert fault([replace(slow, unmet_s=601.0, stands_s=601.0), replace(BEHIND, unmet_s=601.0)])


def test_a_test_may_shorten_what_counts_as_a_hang() -> None:
    shorter = replace(WAITS, unmet_s=4.0, stands_s=4.0)
    assert fault([shorter, replace(BEHIND, unmet_s=4.0)], hang_s=3.0)
