"""The webhook verifier against mutated calls, judged by the reference in `signing`; ten thousand cases a second."""

from __future__ import annotations

import random
import re
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from typing import TYPE_CHECKING, Final

from lifecycle.zocdoc import InvalidConfiguration, webhook
from tests.fuzz import signing

if TYPE_CHECKING:
    from collections.abc import Callable

    Change = Callable[[random.Random, "Attempt"], None]

KEYS: Final = (
    "g9Y9hjTUk9KKH7ffBRbtRmJYo2OISsdMK4flbfDa3zR=",
    "YW5vdGhlci1rZXktb2YtZXhhY3RseS0zMi1ieXRlcyE=",
    "YQ==",
    "AAA=",
    "a" * 88,
    "b" * 400,
)
BODIES: Final = (
    (
        b'{"event_type":"appointment_updated","data":{"data_type":"appointment_data","appointment_data":'
        b'{"appointment_id":"62g4ar44-1yv9-0931-dl3t-e9c2174kks09","appointment_update_type":"updated",'
        b'"appointment_updated_timestamp":"2026-11-22T09:59:58.5Z","changed_attributes":[{"attribute_path":"a"}]}}}'
    ),
    b'{"event_type":"appointment_updated","data":{"appointment_data":{"appointment_id":"a"}}}',
    b'{"event_type":"provider_updated"}',
    b"",
    b"\x00\xff.",
)
NOW: Final = 1795341600
PROCESSES: Final = 2
_SIGNATURE: Final = "webhook-signature"
_TIMESTAMP: Final = "webhook-timestamp"
_AGES: Final = (0, 1, 299, 300, 301, -299, -300, -301, 10**4, 10**8, -(10**9), NOW, NOW - 10**10)
_ODD: Final = (
    " ",
    "\t",
    "\n",
    "\x00",
    "\u00a0",
    "\u212a",
    "\u0661",
    ";",
    ":",
    ",",
    "=",
    "v1:",
    "v2:",
    "-",
    "A",
    "0",
    "/",
)
_ENTRIES: Final = ("v2:x", "v1:", "v1", "", ":", "V1:x", "v10:y", "v2:" + "z" * 4100, ";" * 20, "v2:;" * 17, "v2::=,")
_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)


@dataclass(slots=True)
class Figures:
    """What was tried and found. A false accept is what the reference refuses, a false reject what it accepts."""

    cases: int = 0
    false_accepts: int = 0
    false_rejects: int = 0
    exceptions: int = 0
    disagreements: int = 0
    verdicts: dict[str, int] = field(default_factory=dict)
    findings: list[str] = field(default_factory=list)

    def add(self, other: Figures) -> None:
        """Count in what another process found."""
        self.cases += other.cases
        self.false_accepts += other.false_accepts
        self.false_rejects += other.false_rejects
        self.exceptions += other.exceptions
        self.disagreements += other.disagreements
        self.verdicts = dict(Counter(self.verdicts) + Counter(other.verdicts))
        self.findings = (self.findings + other.findings)[:20]


@dataclass(slots=True)
class Attempt:
    """One call as it is about to be made."""

    body: bytes
    seconds: str
    signature: str
    keys: list[str]
    now: float
    names: tuple[str, str] = (_TIMESTAMP, _SIGNATURE)
    more: tuple[tuple[str, str], ...] = ()

    def pairs(self) -> dict[str, str]:
        """Give the headers; what has one name is joined, as servers do."""
        found: dict[str, str] = {}
        for name, value in (*zip(self.names, (self.seconds, self.signature), strict=True), *self.more):
            found[name] = f"{found[name]}, {value}" if name in found else value
        return found


def run(cases: int, seed: int, *, processes: int = PROCESSES) -> Figures:
    """Try so many calls; the same seed tries the same ones."""
    total = Figures()
    shares = [cases // processes + (number < cases % processes) for number in range(processes)]
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        for figures in pool.map(_share, shares, [f"{seed}-{number}" for number in range(processes)]):
            total.add(figures)
    return total


def judge(attempt: Attempt, figures: Figures) -> None:
    """Put one call to the verifier and to the reference, and compare."""
    headers = attempt.pairs()
    expected = signing.verdict(headers.items(), attempt.body, attempt.keys, attempt.now)
    figures.cases += 1
    try:
        found = _verified(attempt, headers)
        _check_parsed(attempt.body)
    except Exception as error:  # noqa: BLE001 # that is what the fuzzer looks for
        figures.exceptions += 1
        _note(figures, attempt, f"raised {error!r}")
        return
    figures.verdicts[expected] = figures.verdicts.get(expected, 0) + 1
    if found == expected:
        return
    figures.disagreements += 1
    figures.false_accepts += found == "accepted"
    figures.false_rejects += expected == "accepted"
    _note(figures, attempt, f"{found} instead of {expected}")


def _verified(attempt: Attempt, headers: dict[str, str]) -> str:
    try:
        call = webhook.verify(body=attempt.body, headers=headers, keys=attempt.keys, now=attempt.now)
    except InvalidConfiguration:
        return "misconfigured"
    except webhook.OutOfTolerance as error:
        return error.reason_code
    except webhook.NotAuthentic as error:
        str(error)
        return "refused"
    secret, message = signing.bytes_of(attempt.keys[call.key_index]), f"{attempt.seconds.strip()}.".encode()
    right = "v1:" + signing.base64_of(signing.mac(secret or b"", message + attempt.body))
    return "accepted" if right in attempt.signature else "accepted by a key that did not sign"


def _check_parsed(body: bytes) -> None:
    update = webhook.parse(body)
    if update is not None and not _ID.fullmatch(update.appointment_id):
        raise ValueError("an id that must not reach a URL")


def _share(cases: int, seed: str) -> Figures:
    draw, figures = random.Random(seed), Figures()  # noqa: S311 # repeatable is the point
    for _ in range(cases):
        judge(_drawn(draw), figures)
    return figures


def _drawn(draw: random.Random) -> Attempt:
    """Make a call that is right, perhaps with what rightly may vary, and spoil two of three in one way or two."""
    keys = draw.sample(KEYS, draw.choice((1, 1, 2, 3)))
    body = draw.choice(BODIES)
    if draw.random() < 0.3:
        body = _flipped(draw, body)
    attempt = Attempt(body, str(NOW - draw.choice(_AGES)), "", keys, NOW)
    attempt.signature = _signed(attempt, draw.choice(keys))
    for change in draw.choices(_HARMLESS, k=draw.choice((0, 1, 1, 2))):
        change(draw, attempt)
    for change in draw.choices(_HARMFUL, k=draw.choice((0, 1, 1, 2))):
        change(draw, attempt)
    return attempt


def _signed(attempt: Attempt, key: str) -> str:
    secret, message = signing.bytes_of(key), attempt.seconds.encode() + b"." + attempt.body
    return "v1:" + signing.base64_of(signing.mac(secret or b"", message))


def _flipped(draw: random.Random, data: bytes) -> bytes:
    if not data:
        return b"\x01"
    at = draw.randrange(len(data))
    return data[:at] + bytes([data[at] ^ (1 << draw.randrange(8))]) + data[at + 1 :]


def _spoiled(draw: random.Random, text: str) -> str:
    at = draw.randrange(len(text) + 1)
    odd = draw.choice(_ODD)
    return draw.choice((text[:at] + odd + text[at:], text[:at] + odd + text[at + 1 :], text[:at] + text[at + 1 :]))


def _change_body(draw: random.Random, attempt: Attempt) -> None:
    attempt.body = draw.choice((_flipped(draw, attempt.body), attempt.body + b"\n", attempt.body[:-1]))


def _spoil_signature(draw: random.Random, attempt: Attempt) -> None:
    attempt.signature = _spoiled(draw, attempt.signature)


def _respell_signature(draw: random.Random, attempt: Attempt) -> None:
    version, _, value = attempt.signature.partition(":")
    last = chr(ord(value[-2]) + 1) if len(value) > 1 else "A"
    spellings = (
        value.replace("+", "-").replace("/", "_"),
        value.rstrip("="),
        f"{value}=",
        value[:-2] + last + "=",
        value.swapcase(),
        f"{value[:20]}\n{value[20:]}",
        value.encode().hex(),
    )
    attempt.signature = f"{version}:{draw.choice(spellings)}"


def _spoil_timestamp(draw: random.Random, attempt: Attempt) -> None:
    seconds = attempt.seconds
    odd = (f"0{seconds}", f"+{seconds}", f"{seconds}.0", f"-{seconds}", seconds * 20, "", f"{seconds}e0", "NaN", "1_0")
    attempt.seconds = draw.choice((*odd, _spoiled(draw, seconds)))


def _shift_time(draw: random.Random, attempt: Attempt) -> None:
    attempt.seconds = str(NOW - draw.choice(_AGES))


def _change_keys(draw: random.Random, attempt: Attempt) -> None:
    dropped = attempt.keys.pop() if attempt.keys else ""
    attempt.keys.append(draw.choice((draw.choice(KEYS), _spoiled(draw, dropped))))


def _drop_key(_draw: random.Random, attempt: Attempt) -> None:
    attempt.keys = attempt.keys[1:]


def _spoil_name(draw: random.Random, attempt: Attempt) -> None:
    attempt.names = (_spoiled(draw, attempt.names[0]), attempt.names[1])


def _repeat_header(draw: random.Random, attempt: Attempt) -> None:
    name, value = draw.choice(((_SIGNATURE, attempt.signature), (_TIMESTAMP, attempt.seconds)))
    attempt.more += ((draw.choice((name, name.title(), name.replace("k", "\u212a"))), value),)


def _other_version(draw: random.Random, attempt: Attempt) -> None:
    attempt.signature = attempt.signature.replace("v1:", draw.choice(("v2:", "V1:", "v1 :", "1:", "v1=", "v11:")))


def _case_of_names(draw: random.Random, attempt: Attempt) -> None:
    first, second = attempt.names
    attempt.names = draw.choice(((first.upper(), second.title()), (first.title(), second), (first, second.upper())))


def _more_entries(draw: random.Random, attempt: Attempt) -> None:
    entries = [attempt.signature, *draw.choices(_ENTRIES[:7], k=draw.choice((1, 2)))]
    if draw.random() < 0.2:
        entries.append(draw.choice(_ENTRIES[7:]))
    draw.shuffle(entries)
    attempt.signature = draw.choice((";", "; ", " ;", ";;", "\t;")).join(entries)


def _blanks(draw: random.Random, attempt: Attempt) -> None:
    attempt.signature = draw.choice((f" {attempt.signature}", f"{attempt.signature}\t"))
    attempt.seconds = draw.choice((f" {attempt.seconds}", f"{attempt.seconds} "))


def _both_keys(draw: random.Random, attempt: Attempt) -> None:
    bare = Attempt(attempt.body, attempt.seconds.strip(" \t"), "", [], NOW)
    attempt.signature += ";" + _signed(bare, draw.choice(KEYS))


def _other_headers(draw: random.Random, attempt: Attempt) -> None:
    attempt.more += (("content-type", "application/json"), (f"x-{draw.choice(_ODD)}", "webhook-signature"))


_HARMLESS: Final[tuple[Change, ...]] = (_case_of_names, _more_entries, _blanks, _both_keys, _other_headers)
_HARMFUL: Final[tuple[Change, ...]] = (
    _change_body,
    _spoil_signature,
    _respell_signature,
    _spoil_timestamp,
    _shift_time,
    _change_keys,
    _drop_key,
    _spoil_name,
    _repeat_header,
    _other_version,
)


def _note(figures: Figures, attempt: Attempt, problem: str) -> None:
    if len(figures.findings) < 20:
        figures.findings.append(f"{problem}: {attempt!r}"[:3000])
