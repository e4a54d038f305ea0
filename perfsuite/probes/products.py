"""Probes of products, those of functions too: by a trace of the step, their dtype and exactness."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from perfsuite.devices.precision import Precision
from perfsuite.measuring.tracing import Call, traced
from perfsuite.probes.exactness import Exactness, exactness
from perfsuite.probes.probe import Found, MakeArm, dtype_name, probe, settled
from perfsuite.probes.references import shared
from perfsuite.training.arm import NotShownError

_ESCAPED = 0.01
"""Largest share of a step's FLOPs in another dtype. Some are meant to be: a rotary embedding's
angles (a product of rank one), the router of experts. Attention that escapes is more than this from
about 50 tokens on at a width of 768, and 0.3 % at 16."""


@dataclass
class TracedSteps:
    """Two steps in turn, as operators tell, and how exact the products of the first were."""

    calls: list[Sequence[Call]] = field(default_factory=list)
    exactness: list[tuple[Call, Exactness]] = field(default_factory=list)

    @property
    def products(self) -> list[Call]:
        """Those of floating point in the first step's two passes.

        An optimizer may compute in what it likes, and no autocast casts whole or complex numbers.
        """
        found = [
            call
            for call in self.calls[0]
            if call.flops and call.phase != "optimizer" and _of_floats(call)
        ]
        if not found:
            raise NotShownError("nothing to look at: no product or convolution was computed")
        return found


@shared
def traced_steps(make: MakeArm, precision: Precision, batch: Any) -> TracedSteps:
    """Take two steps, traced."""
    arm = settled(make(precision), batch)
    models = [part for part in arm.parts.values() if isinstance(part, nn.Module)]
    found = TracedSteps()

    def look(call: Call, arguments: Sequence[Any], named: Mapping[str, Any], result: Any) -> None:
        if call.flops and call.phase != "optimizer":
            with torch.no_grad():
                seen = exactness(call.name, arguments, named, result)
            if seen is not None:
                found.exactness.append((call, seen))

    for each in (look, None):
        with traced(models, each) as trace:
            arm.step(batch)
        found.calls.append(trace.calls)
    return found


@probe(
    wanted="products that compute in the precision, on the training's device",
    remedy="keep attention, einsum and other products inside autocast too, do not cast their"
    " operands to float32, and compute again under autocast what a checkpoint left out",
)
def product_dtypes(make: MakeArm, precision: Precision, batch: Any) -> Found:
    """Every product must be in the precision, of whatever function, and in both passes.

    By FLOPs: small ones may be in float32 on purpose. Operands in eight bits are no fault, and
    torch's own attention is left out, which on a CPU computes in float32 where it drops out.
    """
    expected = dtype_name(precision.autocast_dtype or torch.float32)
    device = make(precision).device.type
    steps = traced_steps(make, precision, batch)
    flops: dict[str, int] = defaultdict(int)
    sites: dict[str, str] = {}
    for call in (each for each in steps.products if not each.of_attention):
        how = _wrongly_computed(call, expected, device)
        flops[how] += call.flops
        sites.setdefault(how, f"{call.name} in {call.phase}, {call.site}")
    total = sum(flops.values())
    wrong = {how: number for how, number in flops.items() if how and number > _ESCAPED * total}
    if wrong:
        how = max(wrong, key=wrong.__getitem__)
        share = f"{wrong[how] / total:.0%} of the FLOPs {how}"
        return Found(f"{share}: {sites[how]}", False, f"products in {expected} on {device}")
    return Found(f"{len(steps.products)} products computed in {expected}", good=True)


def _of_floats(call: Call) -> list[str]:
    """Return the dtypes of a call's inputs of floating point."""
    return [each.dtype for each in call.inputs if "float" in each.dtype]


def _wrongly_computed(call: Call, expected: str, device: str) -> str:
    """Return in which other dtype, or where else, a product was computed; empty if rightly."""
    dtypes = set(_of_floats(call))
    if not dtypes & {expected} and not any("float8" in dtype for dtype in dtypes):
        return f"in {' and '.join(sorted(dtypes))}"
    elsewhere = {each.device for each in call.inputs if each.elements > 1} - {device}
    return f"on {' and '.join(sorted(elsewhere))}" if elsewhere else ""


# Errors as a share of the terms (rounded operands, and sums) and of the result (once rounded).
# Measured on this repository's trainings: float32 3e-7 of the terms; bfloat16 1.7e-3 and float16
# 2e-4 of the result. TF32 is 3e-4 of the terms, float32 in bfloat16 2e-3.
_LARGEST = {
    "float32": (5e-5, 1e-6),
    "tf32": (1e-3, 1e-6),
    "bfloat16": (5e-4, 6e-3),
    "float16": (1e-4, 1e-3),
}


@probe(
    wanted="products as exact as their dtype",
    remedy="what computes them is less exact than its flags say: are NVIDIA_TF32_OVERRIDE or"
    " ONEDNN_DEFAULT_FPMATH_MODE set, or sums of float16 allowed to be kept in float16?",
)
def exact_products(make: MakeArm, precision: Precision, batch: Any) -> Found:
    """A product must be as exact as its dtype, by some of its own numbers in float64.

    Those of the step's own operands and shapes, on which it depends which kernel computes them.
    The error is held against the size of the terms, since the sum of many may all but vanish.
    """
    steps = traced_steps(make, precision, batch)
    seen = steps.exactness if steps.products else []
    worst, told = 0.0, ""
    for call, found in seen:
        dtype = _of_floats(call)[0]
        kind = "tf32" if (dtype, precision) == ("float32", Precision.tf32) else dtype
        of_terms, of_result = _LARGEST.get(kind, _LARGEST["float32"])
        allowed = of_terms * found.terms + of_result * found.exact + found.least
        if found.error > worst * allowed:
            worst = found.error / allowed if allowed else float("inf")
            off = found.error / found.terms if found.terms else float("inf")
            told = f"a {dtype} {call.name} is off by {off:.0e}: {call.phase}, {call.site}"
    return Found(told if worst > 1 else f"{len(seen)} products are exact", good=worst <= 1)
