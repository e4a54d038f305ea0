"""How long do hundreds of steps take without a wait between them, their stalls included?"""

from perfsuite import Bench, Duet, Precision, Verdict, judge_stalls


def test_sustained(perf: Bench, amp: Precision) -> None:
    """Both precisions take turns: what the machine stalls, it stalls for both."""
    asked = perf.thresholds.stalls

    def judge(turns: Duet) -> Verdict:
        return judge_stalls(turns, asked.max_ratio, confidence=asked.confidence)

    pace = perf.sustain(Precision.fp32, amp, judge)
    perf.metric("step_s", pace.mean_s, unit="s", better="lower")
