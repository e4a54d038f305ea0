"""Does a mixed-precision step take less time?"""

import pytest

from perfsuite import Bench, Duet, Estimate, Precision, Verdict, busy_doublings, judge_speedup


@pytest.mark.one_tree
def test_amp_speedup(perf: Bench, amp: Precision, reference: Precision) -> None:
    """Both take turns in one process, so that what slows the machine slows both.

    It is gated at a batch that keeps the device busy; at a smaller one it would judge the host.
    The workload's own batch is told beside it.
    """
    asked = perf.thresholds.amp_speedup
    confidence = asked.confidence

    def speedup_of(turns: Duet) -> Estimate:
        return turns.ratio("A", over="B", confidence=confidence)

    def take_turns(gate: str, minimum: float | None, doublings: int = 0) -> Estimate:
        def judge(turns: Duet) -> Verdict:
            return judge_speedup(gate, turns, minimum, confidence=confidence, name=reference)

        first, second = (perf.arm(each, doublings=doublings) for each in (reference, amp))
        turns = perf.duet(first, second, judge)
        perf.loads((first, turns.blocks_of("A")), (second, turns.blocks_of("B")))
        return speedup_of(turns)

    doublings = busy_doublings(perf, reference, amp)
    if doublings:
        own = take_turns("own_batch", None)
        if not own.unknown:
            perf.metric("speedup_own_batch", own.value, unit="x", better="higher")
    speedup = take_turns("amp_speedup", asked.minimum(amp, reference), doublings)
    if speedup.unknown:
        return
    perf.metric("speedup", speedup.value, unit="x", better="higher")
    if speedup.high < 1:
        slower = 1 / speedup.value
        name = perf.machine.hardware.name
        perf.show(f"{amp} is {slower:.1f} times slower than {reference} on {name}: it does not pay")
