"""Requests as tables for people."""

from collections import Counter
from typing import Any, Final

from privacyctl.following import silent
from privacyctl.requests import waiting_for
from privacyctl.tables import add_row, day, new_table, print_table


def show_opened(opened: dict[str, Any]) -> None:
    print(opened["request_id"])


def show_requests(page: dict[str, Any]) -> None:
    table = new_table("Request", "Kind", "Status", "Due")
    for item in page["items"]:
        add_row(table, item["request_id"], item["kind"], item["status"], day(item["due_at"]))
    if page["items"]:
        print_table(table)


def show_preview(preview: dict[str, Any]) -> None:
    """What goes, counted; what stays, one by one."""
    goes = new_table("Goes: system", "Class", "Anchors", "Rows")
    for item in preview["goes"]:
        add_row(goes, item["system"], item["data_class"], str(item["anchor_count"]), str(item["row_count"]))
    stays = new_table("Stays: anchor", "System, class", "Rows", "Why", "Until")
    for item in preview["stays"]:
        held = f"{item['system']}\n{item['data_class']}"
        add_row(
            stays, item["anchor"], held, str(item["row_count"]), _words(item["why"]), _until(item["until"], item["why"])
        )
    print_table(goes)
    print_table(stays)


def show_state(state: dict[str, Any]) -> None:
    """Status, steps, who is waited for, holds, what is outstanding, history."""
    reason = f" ({_words(state['reason'])})" if state.get("reason") else ""
    extended = f" (extended: {_words(state['extension'])})" if state.get("extension") else ""
    print(f"{state['kind']}: {_words(state['status'])}{reason}, due {day(state['due_at'])}{extended}")
    for step, count in Counter(each["step"] for each in state["steps"]).items():
        print(f"  {step}: {count} of {len(state['steps'])}")
    for each in waiting_for(state):
        print(f"    {silent(each)}")
    if state.get("certificate"):
        print(f"  certificate: {state['certificate']}")
    if state.get("holds"):
        holds = new_table("Held: anchor", "Class", "Rows", "Why", "Until")
        for item in state["holds"]:
            owner = f" ({item['owner']})" if item.get("owner") else ""
            why, until = _words(item["basis"]) + owner, _until(item["until"], item["basis"])
            add_row(holds, item["anchor"], item["data_class"], str(item["rows"]), why, until)
        print_table(holds)
    history = new_table("When", "What", "By")
    for item in state.get("history") or ():
        add_row(history, item["at"][:19].replace("T", " "), _what(item), item["by_role"])
    print_table(history)


def show_retention(run: dict[str, Any]) -> None:
    """What a retention run found, by class."""
    print(f"retention run {run['run_id']}")
    for each in run.get("waiting_for") or ():
        print(f"  {silent(each)}")
    if run.get("unanswered"):
        print(f"  ended without an answer of {', '.join(run['unanswered'])}; the next run has asked again")
    table = new_table("Class", "Found")
    for item in run.get("items") or ():
        add_row(table, item["data_class"], "\n".join(f"{k}: {v}" for k, v in item.items() if k != "data_class"))
    print_table(table)


def show_epochs(shown: dict[str, Any]) -> None:
    """The KEK epochs, and from when on what is erased today is gone for everybody."""
    table = new_table("Epoch", "State", "Keys", "Opened", "Destroyed")
    for epoch in shown["epochs"]:
        days = (day(epoch[name]) if epoch.get(name) else "-" for name in ("opened_at", "destroyed_at"))
        add_row(table, str(epoch["epoch"]), epoch["state"], str(epoch["keys"]), *days)
    print_table(table)
    print(f"horizon of what is erased today: {shown.get('horizon')}")


# What to send instead, by the first part of the code of a field that does not fit a carrier's lane.
_EXPECTED: Final = {
    "too_long": "a shorter spelling; the answer to an order, or to POST /v1/quotes, names the most characters",
    "missing": "this field too: the carrier needs it there",
    "no_lane": "another address: no carrier goes there with the order's service",
}


def _what(line: dict[str, Any]) -> str:
    """The step or decision, with its reason and, of a field that does not fit, what to send."""
    said = " ".join(filter(None, (_words(line["what"]), line.get("reason"))))
    expected = _EXPECTED.get(str(line.get("reason")).partition(".")[0]) if line["what"] == "refused" else None
    return f"{said}: send {expected}" if expected else said


def _words(code: str) -> str:
    return str(code).replace("_", " ")


def _until(moment: str | None, why: str) -> str:
    if moment is None:
        return "until it ends"
    return f"it closes; {day(moment)} at the latest" if why == "open_anchor" else day(moment)
