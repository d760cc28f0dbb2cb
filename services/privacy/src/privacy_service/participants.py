"""The systems that take part in requests, by the policy, and what is done with replies about data they do not hold."""

from typing import Final

from event_contracts.topics import system_replies
from servicekit import get_log
from servicekit.core.logs import code
from servicekit.core.metrics import ANSWERS_OUT_OF_SCOPE
from servicekit.core.policy import Policy

log: Final = get_log("rights")


def participants(policy: Policy) -> list[str]:
    """The systems that must reply: those that have a topic for it."""
    return sorted(system for system in policy.systems if system_replies(system) in policy.topics)


def systems_holding(policy: Policy, data_class: str) -> list[str]:
    """The participants that hold the class."""
    return [system for system in participants(policy) if data_class in policy.systems[system].holds]


def note_out_of_scope(system: str, reply: str, count: int) -> None:
    """Count what a system said of data that the policy does not give it. It has no effect."""
    if count:
        ANSWERS_OUT_OF_SCOPE.labels(system, reply).inc(count)
        log.warning("answer_out_of_scope", system=code(system), answer=code(reply), items=count)
