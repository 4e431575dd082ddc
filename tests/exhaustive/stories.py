"""What a worker is doing when the fault strikes."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from lifecycle import LifecycleError
from tests import inthread
from tests.support import ACTOR, COMMANDS, LATER, OPERATIONS, arm, send

if TYPE_CHECKING:
    from collections.abc import Callable

    from lifecycle import Lifecycle
    from tests.exhaustive.world import World

BEGIN: Final = {"confirm": "pending_booking"}
"""Statuses that the commands begin from; the others begin from `confirmed`."""

TARGETS: Final = {
    "confirm": {"status": "confirmed"},
    "cancel": {"status": "cancelled"},
    "reschedule": {"status": "cancelled"},
    "mark_arrived": {"status": "cancelled"},
    "mark_no_show": {"status": "no_show"},
}
"""What the provider has done already where a command meets a conflict."""

LEASE_OVER: Final = 120.0
"""Seconds after which every lease and every pause of recovery has run out."""

TOLD: Final = "user:1"


@dataclass(slots=True)
class Scene:
    """One appointment and what became of it."""

    world: World
    command: str
    appointment_id: str
    key: str
    command_id: str = ""
    provider_acted: bool = False
    operator_acted: bool = False

    def send(self, product: Lifecycle) -> object:
        """Give the command, with its key."""
        given: dict[str, Any] = {"request_key": self.key}
        if self.command == "cancel":
            given |= {"reason": "a text of the patient", "reason_type": "other_patient_reason"}
        return send(product, self.command, self.appointment_id, **given)

    def submit(self, product: Lifecycle) -> object:
        """Submit the command, with its key."""
        given: dict[str, Any] = {"start_time": LATER} if self.command == "reschedule" else {}
        if self.command == "cancel":
            given = {"reason": "a text of the patient", "reason_type": "other_patient_reason"}
        return product.submit(self.command, self.appointment_id, actor=ACTOR, request_key=self.key, **given).id

    def provider(self, **change: Any) -> None:
        """Let the provider change the appointment."""
        self.provider_acted = True
        self.world.stage.change(self.appointment_id, **change)


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """How the scene is set, and what is done in it while the fault waits."""

    prepare: Callable[[Scene], None]
    act: Callable[[Scene, Lifecycle], object]
    commands: tuple[str, ...] = COMMANDS
    client: str = "main"
    is_queued: bool = False


def begin(world: World, command: str, *, is_tracked: bool = True) -> Scene:
    """Make an appointment that the command is allowed for, and track it."""
    yesterday = (world.clock.now() - timedelta(days=1)).isoformat(timespec="seconds")
    status = BEGIN.get(command, "confirmed")
    appointment_id = world.stage.add(status=status, start_time=yesterday)
    if is_tracked:
        world.workers[0].product.track(appointment_id, actor=ACTOR)
    return Scene(world, command, appointment_id, f"key-{appointment_id}")


def recover(scene: Scene, product: Lifecycle) -> None:
    """Recover and dispatch until nothing is left, with pauses that are skipped. Fails when it does not end."""
    for _ in range(12):
        scene.world.clock.skip(LEASE_OVER)
        left = product.recover()
        if left.queued:
            dispatch(scene, product)
        elif not left.waiting:
            return
    raise AssertionError("recovery comes to no end")


def dispatch(_: Scene, product: Lifecycle) -> None:
    """Look at the queue once, as a worker does."""
    inthread.Sender(product._resources).look()


def _nothing(_: Scene) -> None:
    """Do nothing more."""


def _conflict(scene: Scene) -> None:
    scene.provider(**TARGETS[scene.command])


def _closed(scene: Scene) -> None:
    scene.provider(status="cancelled")
    scene.world.workers[0].product.track(scene.appointment_id, actor=ACTOR)


def _lose(scene: Scene, command: str, when: str) -> None:
    arm(scene.world.stage, kind="reset", operation=OPERATIONS[command], when=when)
    with contextlib.suppress(LifecycleError):
        send(scene.world.workers[0].product, command, scene.appointment_id)


def _doubted(scene: Scene) -> None:
    _lose(scene, "mark_arrived", "before")
    recover(scene, scene.world.workers[0].product)


def _lost(when: str) -> Callable[[Scene], None]:
    def prepare(scene: Scene) -> None:
        arm(scene.world.stage, kind="reset", operation=OPERATIONS[scene.command], when=when)
        with contextlib.suppress(LifecycleError):
            scene.send(scene.world.workers[0].product)

    return prepare


def _abandoned(scene: Scene) -> None:
    """Leave a command in `sending`, as a killed process does: the request was sent and applied."""
    arm(scene.world.stage, kind="reset", operation=OPERATIONS[scene.command], when="after")
    line = scene.world.workers[0].line
    scene.world.trap.set(("answer_classified", 1), lambda: setattr(line, "failure", "database_down"))
    with contextlib.suppress(LifecycleError):
        scene.send(scene.world.workers[0].product)
    line.failure = None


def _needing_attention(scene: Scene) -> None:
    """Lose an answer, then let the provider do what nothing explains."""
    _lost("before")(scene)
    scene.provider()
    recover(scene, scene.world.workers[0].product)
    query = "SELECT command_id FROM lifecycle_commands WHERE appointment_id = ? AND state = 'needs_attention'"
    [row] = scene.world.rows(query, scene.appointment_id)
    scene.command_id = row["command_id"]


def _resolve(resolution: str) -> Callable[[Scene, Lifecycle], object]:
    def act(scene: Scene, product: Lifecycle) -> object:
        scene.operator_acted = True
        return product.resolve(scene.command_id, resolution=resolution, reason_code="looked", actor=TOLD)

    return act


def _send(scene: Scene, product: Lifecycle) -> object:
    return scene.send(product)


def _track(scene: Scene, product: Lifecycle) -> object:
    return product.track(scene.appointment_id, actor=ACTOR)


def _moved(scene: Scene) -> None:
    scene.provider(status="rescheduled", start_time="2031-05-01T08:00:00+00:00")


def _submit(scene: Scene, product: Lifecycle) -> object:
    return scene.submit(product)


def _submitted(scene: Scene) -> None:
    scene.submit(scene.world.workers[0].product)


def _submitted_then(prepare: Callable[[Scene], None]) -> Callable[[Scene], None]:
    def both(scene: Scene) -> None:
        _submitted(scene)
        prepare(scene)

    return both


def _submitted_in_doubt(scene: Scene) -> None:
    _doubted(scene)
    _submitted(scene)


def _withdraw(scene: Scene, product: Lifecycle) -> object:
    query = "SELECT command_id FROM lifecycle_commands WHERE appointment_id = ?"
    [row] = scene.world.rows(query, scene.appointment_id)
    return product.submission(row["command_id"]).withdraw(actor=TOLD)


STORIES: Final[dict[str, Story]] = {
    "send": Story(prepare=_nothing, act=_send),
    "send_without_token": Story(prepare=_nothing, act=_send, client="cold", commands=("confirm",)),
    "send_into_conflict": Story(prepare=_conflict, act=_send),
    "send_while_in_doubt": Story(prepare=_doubted, act=_send, commands=("confirm", "reschedule")),
    "be_refused": Story(prepare=_closed, act=_send, commands=("confirm", "reschedule")),
    "track_first": Story(prepare=_nothing, act=_track, commands=("confirm",)),
    "track_again": Story(prepare=_moved, act=_track, commands=("confirm",)),
    "recover_unapplied": Story(prepare=_lost("before"), act=recover),
    "recover_applied": Story(prepare=_lost("after"), act=recover),
    "recover_abandoned": Story(prepare=_abandoned, act=recover),
    "submit": Story(prepare=_nothing, act=_submit, commands=("confirm", "reschedule"), is_queued=True),
    "dispatch": Story(prepare=_submitted, act=dispatch, is_queued=True),
    "dispatch_into_conflict": Story(
        prepare=_submitted_then(_conflict), act=dispatch, commands=("confirm",), is_queued=True
    ),
    "dispatch_while_in_doubt": Story(
        prepare=_submitted_in_doubt, act=dispatch, commands=("confirm", "reschedule"), is_queued=True
    ),
    "be_refused_at_dispatch": Story(
        prepare=_submitted_then(_closed), act=dispatch, commands=("reschedule",), is_queued=True
    ),
    "withdraw": Story(prepare=_submitted, act=_withdraw, commands=("confirm",), is_queued=True),
    "resolve_applied": Story(prepare=_needing_attention, act=_resolve("applied")),
    "resolve_rejected": Story(prepare=_needing_attention, act=_resolve("rejected"), commands=("confirm", "reschedule")),
    "resolve_retry": Story(prepare=_needing_attention, act=_resolve("retry")),
}
"""Every command where its way differs; one or two where it is the same code whatever the command."""
