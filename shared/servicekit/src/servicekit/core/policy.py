"""The policy document: what is held, why, how long, who gets it, and which service may open which class for what.

A base file and any number of fragments (a third party's systems, topics and grants) make one `Policy`. An entry stands
in one file only; unknown names, missing rules and contradictions are refused at load, with file and entry named.
"""

import re
from collections.abc import Iterable, Mapping
from datetime import date
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, field_validator, model_validator

from event_contracts.codes import DataClass, PolicyVersion, Purpose, SystemName
from servicekit.core.errors import Misconfigured
from servicekit.core.strict_yaml import BadYaml, load_yaml

IndexKind = Literal["email", "phone", "order_number", "shop_order_number"]
ClauseId = Annotated[str, StringConstraints(pattern=r"^[CUSDRV][1-9]$")]
FidesKey = Annotated[str, StringConstraints(pattern=r"^[a-z_]+(\.[a-z_]+)*$")]
TopicName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9.-]{2,60}$")]
HostName = Annotated[str, StringConstraints(pattern=r"^([a-z0-9-]{1,63}\.){1,8}[a-z]{2,24}$")]
# What starts the clock of a retention rule, such as `order_delivered`.
AnchorEvent = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z_]{2,40}$")]
# ISO 8601 in whole units; a year counts 365 days and a month 30, so that the due date is the same everywhere.
Period = Annotated[str, StringConstraints(min_length=3, pattern=r"^P(\d{1,3}Y)?(\d{1,3}M)?(\d{1,3}W)?(\d{1,4}D)?$")]
_DAYS = {"Y": 365, "M": 30, "W": 7, "D": 1}
Text = Annotated[str, StringConstraints(min_length=1, max_length=300)]


class PolicyError(Misconfigured):
    """The policy documents cannot be used. The message names file and entry, and what to change."""

    code = "policy"


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Controller(_Part):
    """Who answers for the data."""

    name: Text
    contact: Text


class PurposeRule(_Part):
    """Why a value may be opened: the fideslang data use and the clauses (docs/policy.md) that allow it."""

    use: FidesKey
    clauses: Annotated[list[ClauseId], Field(min_length=1)]
    title: Text

    @field_validator("use")
    @classmethod
    def _never_marketing(cls, use: str) -> str:
        if use.split(".")[0] in ("marketing", "sales", "third_party_sharing", "train_ai_system"):
            raise ValueError("clause U5 and D1 rule this use out, whoever asks")
        return use


class Retention(_Part):
    """Kept for `keep` after the event `after`, on the legal `basis`; at most for `unused` while nobody uses it.

    An `obligation` is a duty to keep: it outlasts the wish of the person to have the data erased.
    """

    after: AnchorEvent
    keep: Period
    basis: Text
    obligation: bool = False
    unused: Period | None = None

    @property
    def days(self) -> int:
        return _days(self.keep)

    @property
    def unused_days(self) -> int | None:
        return None if self.unused is None else _days(self.unused)


def _days(period: str) -> int:
    return sum(int(count) * _DAYS[unit] for count, unit in re.findall(r"(\d+)([YMWD])", period))


class ClassRule(_Part):
    """A data class: what is in it, why, how long and who receives it (all of it is required: law L10).

    `held_for` are the purposes that are left while data of an erased person is held. The `owner` is the system that says
    whether an anchor is still open, and `longest_open` how long that may hold an erasure up. Without an owner here it is the
    only system that seals the class.
    """

    title: Text
    categories: Annotated[list[FidesKey], Field(min_length=1)]
    purposes: Annotated[list[Purpose], Field(min_length=1)]
    retention: Retention
    recipients: list[SystemName]
    held_for: list[Purpose] = []
    owner: SystemName | None = None
    longest_open: Period | None = None

    @property
    def longest_open_days(self) -> int | None:
        return None if self.longest_open is None else _days(self.longest_open)


class System(_Part):
    """A system of the shop, and the classes of personal data that it holds."""

    title: Text
    holds: list[DataClass]


class Recipient(_Part):
    """Somebody outside who receives data (clause D2), bound to confidentiality (D3).

    A carrier's link to a parcel is shown to its buyer when it leads to one of the `tracking_hosts`."""

    title: Text
    clauses: Annotated[list[ClauseId], Field(min_length=1)]
    tracking_hosts: list[HostName] = []


class TopicRule(_Part):
    """How long a topic keeps the ids in it (class `pseudonym`). None: for ever."""

    owner: SystemName
    keep: Period | None


class Grant(_Part):
    """What one service may do. Nothing that is not listed."""

    open: dict[DataClass, list[Purpose]] = {}
    seal: list[DataClass] = []
    index: list[IndexKind] = []  # may compute the digest of such a term and leave it beside a key
    find: list[IndexKind] = []  # may ask the directory who stands behind a digest
    revoke: bool = False  # may fence, hold and destroy keys, and ask who still uses them
    quotas: dict[DataClass, Annotated[int, Field(ge=1)]] = {}  # leases a minute, where it is not the usual number


class Limits(_Part):
    """Bounds of what the vault hands out."""

    lease_seconds: Annotated[int, Field(ge=5, le=3600)]
    leases_per_minute: Annotated[int, Field(ge=1)]


class Policy(_Part):
    """One consistent policy. Every question is answered from what is written; what is not written is refused."""

    version: PolicyVersion
    clauses: Annotated[list[ClauseId], Field(min_length=1)]
    controller: Controller
    limits: Limits
    purposes: dict[Purpose, PurposeRule]
    classes: dict[DataClass, ClassRule]
    recipients: dict[SystemName, Recipient]
    systems: dict[SystemName, System]
    topics: dict[TopicName, TopicRule]
    grants: dict[SystemName, Grant]

    @classmethod
    def load(cls, files: Iterable[Path]) -> Self:
        """The policy of these YAML files, the base first. Raises PolicyError."""
        merged: dict[str, Any] = {}
        origin: dict[tuple[str, ...], str] = {}
        for path in files:
            _merge(merged, origin, _read(path), path.name)
        if not merged:
            raise PolicyError("no policy file was given: name them in POLICY_FILES, the base first")
        try:
            return cls.model_validate(merged)
        except ValidationError as error:
            details = error.errors(include_url=False)
            raise PolicyError("; ".join(_describe(detail, origin) for detail in details)) from None

    @cached_property
    def digest(self) -> str:
        """SHA-256 of all that it says, in hex. Fragments change it without a new `version`."""
        return sha256(self.model_dump_json().encode()).hexdigest()

    def may_open(self, service: str, data_class: str, purpose: str) -> bool:
        grant = self.grants.get(service)
        return grant is not None and purpose in grant.open.get(data_class, ())

    def may_seal(self, service: str, data_class: str) -> bool:
        grant = self.grants.get(service)
        return grant is not None and data_class in grant.seal

    def may_index(self, service: str, kind: str) -> bool:
        grant = self.grants.get(service)
        return grant is not None and kind in grant.index

    def may_find(self, service: str, kind: str) -> bool:
        grant = self.grants.get(service)
        return grant is not None and kind in grant.find

    def may_revoke(self, service: str) -> bool:
        grant = self.grants.get(service)
        return grant is not None and grant.revoke

    def holds(self, system: str, data_class: str) -> bool:
        """Whether the system is one that holds the class: nothing else that it says of the class counts."""
        return system in self.systems and data_class in self.systems[system].holds

    def owner(self, data_class: str) -> str | None:
        """Who says whether an anchor of the class is still open; None: nobody, so none is."""
        rule = self.classes.get(data_class)
        if rule is None:
            return None
        sealers = [name for name, grant in self.grants.items() if data_class in grant.seal]
        return rule.owner or (sealers[0] if len(sealers) == 1 else None)

    def index_kinds(self, service: str) -> frozenset[str]:
        """The kinds of term whose digest the service may compute: those that it writes and those that it looks up."""
        grant = self.grants.get(service)
        return frozenset((*grant.index, *grant.find)) if grant is not None else frozenset()

    def quota(self, service: str, data_class: str) -> int:
        """Leases a minute; 0 for a service that has no grant."""
        grant = self.grants.get(service)
        return 0 if grant is None else grant.quotas.get(data_class, self.limits.leases_per_minute)

    @model_validator(mode="after")
    def _names_exist(self) -> Self:
        problems = [*_unknown_names(self), *_wrong_grants(self)]
        if problems:
            raise ValueError("; ".join(problems))
        return self


def _unknown_names(policy: Policy) -> Iterable[str]:
    def check(where: str, names: Iterable[str], known: Iterable[str], what: str) -> Iterable[str]:
        for name in names:
            if name not in known:
                yield f"{where}: {name!r} is no {what} of this policy; define it or correct the name"

    for name, purpose in policy.purposes.items():
        yield from check(f"purposes.{name}.clauses", purpose.clauses, policy.clauses, "clause")
    for name, recipient in policy.recipients.items():
        yield from check(f"recipients.{name}.clauses", recipient.clauses, policy.clauses, "clause")
    for name, rule in policy.classes.items():
        yield from check(f"classes.{name}.purposes", rule.purposes, policy.purposes, "purpose")
        yield from check(f"classes.{name}.held_for", rule.held_for, rule.purposes, "purpose of that class")
        yield from check(f"classes.{name}.recipients", rule.recipients, policy.recipients, "recipient")
        holders = [system for system, each in policy.systems.items() if name in each.holds]
        yield from check(f"classes.{name}.owner", [rule.owner] if rule.owner else [], holders, "holder of that class")
    for name, system in policy.systems.items():
        yield from check(f"systems.{name}.holds", system.holds, policy.classes, "class")
    for name, topic in policy.topics.items():
        yield from check(f"topics.{name}.owner", [topic.owner], policy.systems, "system")
    for name, grant in policy.grants.items():
        yield from check("grants", [name], policy.systems, "system")
        named = (*grant.open, *grant.seal, *grant.quotas)
        yield from check(f"grants.{name}", dict.fromkeys(named), policy.classes, "class")


def _wrong_grants(policy: Policy) -> Iterable[str]:
    for service, grant in policy.grants.items():
        for data_class, purposes in grant.open.items():
            rule = policy.classes.get(data_class)
            for purpose in purposes if rule is not None else ():
                if purpose not in rule.purposes:  # type: ignore[union-attr]
                    yield (
                        f"grants.{service}.open.{data_class}: {purpose!r} is not a purpose of that class;"
                        f" add it to classes.{data_class}.purposes or take the grant away"
                    )


def _read(path: Path) -> Mapping[str, Any]:
    try:
        document = load_yaml(path)
    except OSError as error:
        raise PolicyError(f"{path.name}: cannot be read ({type(error).__name__}); check POLICY_FILES") from None
    except BadYaml as error:
        raise PolicyError(f"{path.name}: {error}") from None
    if not isinstance(document, dict) or not all(isinstance(key, str) for key in document):
        raise PolicyError(f"{path.name}: must be a mapping of sections such as systems: and grants:")
    return document


def _merge(merged: dict[str, Any], origin: dict[tuple[str, ...], str], document: Mapping[str, Any], file: str) -> None:
    """Sections that are mappings of named entries add up; an entry or a single value stands in one file only."""
    for section, content in document.items():
        if section == "version" and isinstance(content, date):
            content = content.isoformat()
        if section in _NAMED and not isinstance(content, dict):
            raise PolicyError(f"{file}: {section}: must be a mapping of names to entries")
        entries = content if section in _NAMED else {"": content}
        for name, entry in entries.items():
            place = (section, str(name)) if section in _NAMED else (section,)
            if place in origin:
                raise PolicyError(f"{file}: {'.'.join(place)}: stands in {origin[place]} already; keep one of the two")
            origin[place] = file
            if section in _NAMED:
                merged.setdefault(section, {})[name] = entry
            else:
                merged[section] = entry


_NAMED = frozenset(("purposes", "classes", "recipients", "systems", "topics", "grants"))


def _describe(detail: Any, origin: Mapping[tuple[str, ...], str]) -> str:
    place = tuple(str(part) for part in detail["loc"])
    file = origin.get(place[:2]) or origin.get(place[:1]) or ", ".join(dict.fromkeys(origin.values()))
    what = "is missing" if detail["type"] == "missing" else str(detail["msg"]).removeprefix("Value error, ")
    return f"{file}: {'.'.join(place)}{': ' if place else ''}{what}"
