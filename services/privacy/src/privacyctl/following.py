"""What `follow` says while a request goes on, and how it ended. Pure."""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from privacyctl.client import Exit
from privacyctl.requests import is_ready, waiting_for


class Progress:
    """Turns the states of one request into lines, each said once."""

    def __init__(self) -> None:
        self._said: set[str] = set()

    def lines(self, state: Mapping[str, Any]) -> Iterator[str]:
        """What is new in this state: its status, how many people are at which step, who is waited for."""
        people = len(state.get("subject_ids") or ()) or 1
        at = Counter(step["step"] for step in state["steps"])
        for line in (
            str(state["status"]).replace("_", " "),
            *(f"  {step}: {count} of {people}" if people > 1 else f"  {step}" for step, count in at.items()),
            *(f"    {silent(each)}" for each in waiting_for(state)),
        ):
            if line not in self._said:
                self._said.add(line)
                yield line


def silent(each: Mapping[str, Any]) -> str:
    """One line about a participant that has not answered."""
    again = f", asked again at {_clock(each['next_try_at'])}" if each.get("next_try_at") else ""
    return f"waiting for {each['system']} since {_clock(each['since'])}{again}"


def outcome(state: Mapping[str, Any]) -> tuple[Exit, str]:
    """The exit code, and a sentence."""
    match state["status"]:
        case "completed":
            rest = " Something is outstanding: `show` says what." if state.get("outstanding") else ""
            return Exit.FOUND, f"The request is completed.{rest}"
        case "denied" | "cancelled":
            return Exit.CONFLICT, f"The request was {state['status']}: {state.get('reason')}."
        case "open" | "awaiting_approval":
            return Exit.INCOMPLETE, "It waits for a person: the identity is to be confirmed, or the request approved."
    if is_ready(state):
        return Exit.FOUND, "The package is ready: `download` fetches it, once."
    names = ", ".join(dict.fromkeys(each["system"] for each in waiting_for(state)))
    return Exit.INCOMPLETE, f"It is not over yet{f'; it waits for {names}' if names else ''}. It goes on by itself."


def _clock(moment: str) -> str:
    """The time of day (UTC) of an ISO 8601 moment."""
    return moment.partition("T")[2][:8] or moment
