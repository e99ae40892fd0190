"""What rows and verdicts say, in one sentence and a few numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any, NamedTuple

from rvpt.report.cells import cells
from rvpt.report.evidence import Evidence
from rvpt.report.groups import by_data, percents
from rvpt.report.inspections import summary
from rvpt.report.names import spelled
from rvpt.rows import BEFORE, CLEAN, Row

GONE = 5.0  # ASR in percent up to which a backdoor is called removed
WORKS = 20.0  # ASR in percent from which a trigger is called a backdoor
NOTED = 1.0  # points of accuracy that are worth a word


class Effect(NamedTuple):
    """What a defense changed on one data set: CA and ASR in percent before and after, means over the same attacks."""

    data: str
    title: str
    attacks: int
    ca: tuple[float, float]
    asr: tuple[float, float]


def effects(rows: Sequence[Row]) -> list[Effect]:
    """The effect of each defense measured beside the backdoored model, the highest CA - ASR of a data set first."""
    found = []
    for data, members in by_data(rows).items():
        measured = cells(members)
        for title in measured.titles:
            pairs = [(line[CLEAN], line[title]) for line in measured.lines.values() if line.keys() >= {CLEAN, title}]
            if pairs and title not in (CLEAN, BEFORE):
                ca, asr = (
                    [mean(getattr(pair[side], name) for pair in pairs) for side in (0, 1)] for name in ("ca", "asr")
                )
                found.append(Effect(data, title, len(pairs), (ca[0], ca[1]), (asr[0], asr[1])))
    return sorted(found, key=lambda effect: (-effect.attacks, effect.data, effect.asr[1] - effect.ca[1]))


def headline(evidence: Evidence) -> str:
    """The verdict in one sentence: what was measured comes before what a check suspects."""
    found = effects(evidence.rows)
    if found:
        return _of_effect(found[0], sum(effect.data == found[0].data for effect in found))
    if evidence.verdicts:
        return _of_check(evidence.verdicts[0])
    if accuracies := percents(evidence.rows, "CA"):
        return (
            f"Accuracy on clean images is {mean(accuracies):.1f}%. No trigger was measured before and after cleaning, "
            "so these rows do not say whether a backdoor is left."
        )
    if evidence.inspections:
        return f"{summary(evidence.inspections[0])}."
    if evidence.cleanings:
        return "The model was cleaned. Neither its accuracy nor the attack success rate was measured."
    return "No accuracy or attack success rate was measured."


def _of_effect(effect: Effect, defenses: int) -> str:
    (before, after), cost = effect.asr, effect.ca[0] - effect.ca[1]
    lead = "Cleaning did not remove the backdoor"
    if before < WORKS:
        lead = "These triggers hardly worked before cleaning"
    elif after <= GONE:
        lead = "The backdoor is almost gone"
    elif after < before / 2:
        lead = "The backdoor is weaker, but still there"
    price = f", and accuracy fell by {cost:.1f} points" if cost >= NOTED else ""
    name = spelled(effect.title) + (f", the best of {defenses} defenses," if defenses > 1 else "")
    many = f" (mean of {effect.attacks} attacks)" if effect.attacks > 1 else ""
    moved = "lowers" if after < before else "changes"
    return f"{lead}{price}: {name} {moved} the attack success rate from {before:.1f}% to {after:.1f}%{many}."


def _of_check(verdict: Mapping[str, Any]) -> str:
    model, word = verdict.get("model", "The model"), verdict.get("verdict")
    holds = (
        "" if verdict.get("calibrated", True) else " This p-value does not apply: the calibration is of other models."
    )
    if word == "clean":
        return (
            f"rvpt check finds no backdoor in {model} (p = {verdict['p_value']:.2g}); it cannot see every kind.{holds}"
        )
    first = [f"; the most suspicious target is {target['class']!r}" for target in verdict["targets"][:1]]
    return f"rvpt check calls {model} {word} (p = {verdict['p_value']:.2g}){''.join(first)}.{holds}"
