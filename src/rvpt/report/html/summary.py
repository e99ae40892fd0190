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
from rvpt.rows import BEFORE, CLEAN, INVERTED, Row

GONE = 5.0  # ASR in percent up to which a backdoor is called removed
WORKS = 20.0  # ASR in percent from which a trigger is called a backdoor
NOTED = 1.0  # points of accuracy that are worth a word


class Effect(NamedTuple):
    """What a defense changed on one data set: CA and ASR in percent before and after, means over the same attacks.

    `inverted`: whether the triggers are changes that checks found, which are found in clean models too.
    """

    data: str
    title: str
    attacks: int
    ca: tuple[float, float]
    asr: tuple[float, float]
    inverted: bool


def effects(rows: Sequence[Row]) -> list[Effect]:
    """The effect of each defense measured beside the suspect, the highest CA - ASR of a data set first."""
    found = []
    for data, members in by_data(rows).items():
        measured = cells(members)
        for title in measured.titles:
            met = {key: line for key, line in measured.lines.items() if line.keys() >= {CLEAN, title}}
            if met and title not in (CLEAN, BEFORE):
                ca, asr = (
                    [mean(getattr(line[side], name) for line in met.values()) for side in (CLEAN, title)]
                    for name in ("ca", "asr")
                )
                inverted = all(attack == INVERTED for _, attack in met)
                found.append(Effect(data, title, len(met), (ca[0], ca[1]), (asr[0], asr[1]), inverted))
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
    if effect.inverted:
        lead = "Measured with what a check found, which does not tell whether there was a backdoor"
    elif before < WORKS:
        lead = "These triggers hardly worked before cleaning"
    elif after <= GONE:
        lead = "The backdoor is almost gone"
    elif after < before / 2:
        lead = "The backdoor is weaker, but still there"
    price = f", and accuracy fell by {cost:.1f} points" if cost >= NOTED else ""
    best = f", of {defenses} defenses the best in accuracy minus attack success," if defenses > 1 else ""
    many = f" (mean of {effect.attacks} attacks)" if effect.attacks > 1 else ""
    moved = "lowers" if after < before else "changes"
    change = f"{moved} the attack success rate from {before:.1f}% to {after:.1f}%{many}"
    return f"{lead}{price}: {spelled(effect.title)}{best} {change}."


def _of_check(verdict: Mapping[str, Any]) -> str:
    from rvpt.detection.verdict import basis

    model, word = verdict.get("model", "The model"), verdict.get("verdict")
    why = basis(verdict)
    if word == "clean":
        return f"rvpt check finds no backdoor in {model} ({why}); it cannot see every kind."
    first = [f"; the most suspicious target is {target['class']!r}" for target in verdict["targets"][:1]]
    return f"rvpt check calls {model} {word} ({why}){''.join(first)}."
