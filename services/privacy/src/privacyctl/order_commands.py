"""Stuck orders at the keyboard: see what waits, look an order up by its number, end it. Nothing about a person is shown."""

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

import typer

from privacyctl.common import Json, failures, one_of, parse_id, read_term, show

order = typer.Typer(help="See orders that are stuck, and end them.", no_args_is_help=True)


@order.command("stuck")
def show_stuck(
    silent: Annotated[
        bool, typer.Option("--silent", help="Parcels of which the carrier says nothing new for a week.")
    ] = False,
    as_json: Json = False,
) -> None:
    """List shipments that cannot leave, with the reason, the oldest first."""
    with failures():
        from privacyctl.client import Client

        state = "silent" if silent else "blocked"
        items = list(Client.from_environment("gateway").items("/v1/shipments", state=state))
        show({"items": items}, as_json, _show_shipments)
        _found(items, f"No shipment is {state}.")


@order.command("find")
def find_order(as_json: Json = False) -> None:
    """Look orders up by their number, ours or the shop's own, which is asked for or read from a pipe."""
    with failures():
        from privacyctl.client import Client

        client = Client.from_environment("order")
        items = client.ask_list("POST", "/v1/orders/find", json={"order_number": read_term("order number")})
        show({"items": items}, as_json, _show_orders)
        _found(items, "No order has this number. The number of an erased order is not found either.")


@order.command("close")
def close_order(
    order_id: Annotated[UUID, typer.Argument(parser=parse_id, metavar="ORDER", help="The id that `order find` gives.")],
    reason: Annotated[
        str, typer.Argument(help="What became of it.", **one_of("undeliverable", "delivered", "returned", "lost"))
    ],
    as_json: Json = False,
) -> None:
    """End an order as what became of it, on record. The same again changes nothing."""
    with failures():
        from privacyctl.client import Client

        closed = Client.from_environment("order").ask(
            "POST",
            f"/v1/orders/{order_id}/close",
            "status",
            missing="There is no such order. Check its id.",
            json={"reason": reason},
        )
        show(closed, as_json, lambda done: _show_orders({"items": [done]}))


def _show_shipments(page: dict[str, Any]) -> None:
    from privacyctl.tables import add_row, new_table, print_table

    table = new_table("Order", "Reason or last word", "Since")
    for item in page["items"]:
        why = item["reason"] or item["progress"] or item["state"]
        since = item["blocked_since"] or item["progress_at"] or item["sent_at"]
        add_row(table, item["order_id"], why, _moment(since))
    if page["items"]:
        print_table(table)


def _show_orders(page: dict[str, Any]) -> None:
    from privacyctl.tables import add_row, new_table, print_table

    table = new_table("Order", "Status", "Since", "Blocked by")
    for item in page["items"]:
        add_row(table, item["order_id"], item["status"], _moment(item["status_at"]), item["blocked"] or "")
    if page["items"]:
        print_table(table)


def _moment(text: str | None) -> str:
    return "" if text is None else f"{datetime.fromisoformat(text):%Y-%m-%d %H:%M}"


def _found(items: list[dict[str, Any]], nothing: str) -> None:
    from privacyctl.client import Exit, Failed

    if not items:
        raise Failed(Exit.NOTHING_FOUND, nothing)
