"""When ranks cannot go on together, by what each of them posted: pure functions, without a clock.

A rank posts what it does about once a second. The one that judges adds how long ago it heard of
each. What is found is one line: which rank, where, and the cause.
"""

from collections.abc import Sequence

import msgspec

SILENT_S = 20.0
"""A rank that was not heard of for so long is gone: each posts twenty times as often.

What holds Python's lock for longer, as the loading of a library over a slow network, looks alike.
"""
PATIENCE_S = 10.0
"""For so long a failed rank waits for the others: they may come as far, and fail in order."""
HANG_S = 300.0
"""For so long ranks may be without a meeting, if they never were ten times shorter before."""
_FRESH_S = 3.0  # a rank heard of since then is there
_TIMES_LONGEST = 10.0
_NAMED = 4  # ranks, at most: a line is to be read


class Posting(msgspec.Struct, frozen=True, kw_only=True):
    """What a rank says of itself.

    Attributes:
        doing: the benchmark that it runs.
        failed: why its phase failed, in one line; empty if it has not.
        failed_s: seconds for which it has waited for the others since.
        entered: meetings of all ranks to which it came; it waits in the last one until all did.
        collectives: that it started in the default process group.
        unmet_s: seconds since it passed a meeting, or since it last did work of its own that the
            others wait for.
        longest_s: the longest time between two meetings so far.
        stands_s: seconds for which its main thread has been in one place, or in a meeting.
        place: where the main thread is, as "train.py:33 (load)".
        heard_s: seconds since it was heard of; added by who reads it.
    """

    doing: str = ""
    failed: str = ""
    failed_s: float = 0.0
    entered: int = 0
    collectives: int = 0
    unmet_s: float = 0.0
    longest_s: float = 0.0
    stands_s: float = 0.0
    place: str = ""
    heard_s: float = 0.0


def fault(posted: Sequence[Posting], hang_s: float = HANG_S) -> str | None:
    """Return why the ranks cannot go on, in one line; None if they may.

    `posted` is what each rank said last, by rank; rank 0 does what one does for all, and while it
    does, its `unmet_s` is zero.
    """
    return _gone(posted) or _failed(posted) or _hang(posted, hang_s)


def _gone(posted: Sequence[Posting]) -> str | None:
    silent = [rank for rank, each in enumerate(posted) if each.heard_s > SILENT_S]
    if not silent:
        return None
    first, one = posted[silent[0]], len(silent) == 1
    cause = "killed, or a machine is gone"
    if one:
        cause = "it was killed, its machine is gone, or it lets no thread run"
    return (
        f"{_named(silent, len(posted))} {'has' if one else 'have'} not been heard of for"
        f" {first.heard_s:.0f} s{_in(first) or _in(posted[0])}: {cause}"
    )


def _failed(posted: Sequence[Posting]) -> str | None:
    waited_s = [min(each.failed_s, posted[0].unmet_s) for each in posted]
    failed = [rank for rank, each in enumerate(posted) if each.failed]
    if not any(waited_s[rank] > PATIENCE_S for rank in failed):
        return None
    if any(each.heard_s > _FRESH_S for each in posted):
        return None  # it may be for one that is gone that this one failed
    rank = max(failed, key=lambda rank: posted[rank].failed_s)
    first = posted[rank]
    return (
        f"{_named([rank], len(posted))} failed{_in(first, '')}, and the others waited for it:"
        f" {first.failed}"
    )


def _hang(posted: Sequence[Posting], hang_s: float) -> str | None:
    limit_s = max(hang_s, _TIMES_LONGEST * posted[0].longest_s)
    unmet_s = min(each.unmet_s for each in posted)
    # Where all of them move, they may well work; one that waits for another stands.
    if unmet_s <= limit_s or all(each.stands_s <= limit_s for each in posted):
        return None
    done = [(each.entered, each.collectives) for each in posted]
    behind = [rank for rank, each in enumerate(done) if each == min(done)]
    if len(behind) == len(posted):
        places = ", ".join(
            f"rank {rank} stands in {posted[rank].place}" for rank in behind[:_NAMED]
        )
        return f"none of {len(posted)} ranks went on for {unmet_s:.0f} s{_in(posted[0])}: {places}"
    first, one = posted[behind[0]], len(behind) == 1
    return (
        f"{_named(behind, len(posted))} {'stands' if one else 'stand'} in {first.place}"
        f"{_in(first)}, and the others have waited for {'it' if one else 'them'} for"
        f" {unmet_s:.0f} s"
    )


def _named(ranks: Sequence[int], of: int) -> str:
    shown = ", ".join(map(str, ranks[:_NAMED])) + ", ..." * (len(ranks) > _NAMED)
    return f"rank{'s' * (len(ranks) > 1)} {shown} of {of}"


def _in(posting: Posting, before: str = ",") -> str:
    return f"{before} in {posting.doing}" if posting.doing else ""
