"""Does a mixed-precision step take less time?"""

import pytest

from perfsuite import Bench, Duet, Estimate, Precision, Verdict, judge_speedup


@pytest.mark.one_tree
def test_amp_speedup(perf: Bench, amp: Precision, reference: Precision) -> None:
    """Both take turns in one process, so that what slows the machine slows both."""
    asked = perf.thresholds.amp_speedup
    minimum = asked.minimum(amp, reference)

    def speedup_of(turns: Duet) -> Estimate:
        return turns.ratio("A", over="B", confidence=asked.confidence)

    def judge(turns: Duet) -> Verdict:
        confidence = asked.confidence
        return judge_speedup("amp_speedup", turns, minimum, confidence=confidence, name=reference)

    speedup = speedup_of(perf.duet(perf.arm(reference), perf.arm(amp), judge))
    if speedup.unknown:
        return
    perf.metric("speedup", speedup.value, unit="x", better="higher")
    if speedup.high < 1:
        slower = 1 / speedup.value
        name = perf.machine.hardware.name
        perf.show(f"{amp} is {slower:.1f} times slower than {reference} on {name}: it does not pay")
