"""The chart as text: a picture in Mermaid and tables in Markdown, read back from the chart and its guards. Pure.

The order is that of the vocabularies, so that the same chart gives the same text.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from lifecycle import chart, guards

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence


def picture() -> str:
    """Draw the commands as a Mermaid `stateDiagram-v2`: one edge for each pair of statuses, labelled with commands."""
    edges = [
        f"    {source} --> {target}: {', '.join(commands)}"
        for source in chart.Status
        for target in chart.Status
        if (commands := _commands_between(source, target))
    ]
    final = {state.value for state in chart.AppointmentChart.final_states}
    ends = [f"    {status} --> [*]" for status in chart.Status if status in final]
    entry = f"    [*] --> {chart.AppointmentChart.initial_state.value}"
    return "\n".join(["stateDiagram-v2", entry, *edges, *ends, ""])


def table() -> str:
    """Tabulate the commands: from where each is allowed, what it is answered with, what else is checked."""
    rows = [
        (_code(command), _codes(chart.TOPOLOGY[command]), _answers(chart.TOPOLOGY[command]), _further_checks(command))
        for command in chart.Command
    ]
    return _markdown(("command", "allowed from", "answered with", "checked besides"), rows)


def moves() -> str:
    """Tabulate the moves by Zocdoc or the provider that the chart has; others are recorded as not conforming."""
    observed = chart.TOPOLOGY[chart.OBSERVED]
    rows = [(_code(status), _codes(observed.get(status, ())) or "none") for status in chart.Status]
    return _markdown(("from", "moves to, reported by Zocdoc"), rows)


KINDS: Final[Mapping[str, Callable[[], str]]] = {"picture": picture, "table": table, "moves": moves}
"""The texts by name."""


def _commands_between(source: str, target: str) -> list[str]:
    return [str(command) for command in chart.Command if target in chart.TOPOLOGY[command].get(source, ())]


def _answers(moves_of: Mapping[str, frozenset[str]]) -> str:
    """List the statuses that a command moves to, and say so where it may also stay."""
    targets = {target for source, found in moves_of.items() for target in found if target != source}
    stays = any(source in found for source, found in moves_of.items())
    listed = [_codes(targets)] if targets else []
    return ", or ".join([*listed, "the status as it was"] if stays else listed)


def _further_checks(command: chart.Command) -> str:
    """List the required checks beside the status: by name if they concern every command, else with their rule."""
    checks = [check for check in guards.CHECKS if check.name != "status" and check.concerns(command)]
    everywhere = frozenset(chart.Command)
    own = [f"{_code(check.name)} ({check.rule.rstrip('.')})" for check in checks if check.commands != everywhere]
    return ", ".join([*(_code(check.name) for check in checks if check.commands == everywhere), *own])


def _codes(statuses: Iterable[str]) -> str:
    found = set(statuses)
    return ", ".join(_code(status) for status in chart.Status if status in found)


def _code(text: str) -> str:
    return f"`{text}`"


def _markdown(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
