"""The baseline of the order service: the same request and the same token, put into plain columns. `python -m … <port>`."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated
from uuid import UUID

import asyncpg
import uvicorn
from fastapi import Depends, FastAPI

from order_service.purchases import Purchase
from servicekit.core.clock import Clock
from servicekit.core.settings import Settings
from servicekit.http.auth import Customer, Tokens, customer
from servicekit.http.ids import Ids, new_id

TABLE = """
CREATE TABLE IF NOT EXISTS plain_orders (
    order_id uuid PRIMARY KEY, buyer_id uuid NOT NULL, placed_at timestamptz NOT NULL DEFAULT now(),
    status text NOT NULL, gift boolean NOT NULL, consignee text NOT NULL, lines text NOT NULL, payment text NOT NULL
)"""
INSERT = """
INSERT INTO plain_orders (order_id, buyer_id, status, gift, consignee, lines, payment) VALUES ($1, $2, 'placed', $3, $4, $5, $6)
ON CONFLICT DO NOTHING"""


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with asyncpg.create_pool(os.environ["DATABASE_DSN"], min_size=10, max_size=10) as pool:
        await pool.execute(TABLE)
        app.state.pool = pool
        yield


app = FastAPI(lifespan=_lifespan)
app.state.ids = Ids.of("order", Settings())
_buyer = customer()
app.state.tokens = Tokens(
    Clock(), customer_key=Path(os.environ["CUSTOMER_PUBLIC_KEY_FILE"]).read_bytes(), staff_key=None
)


@app.get("/readyz")
async def readyz() -> dict[str, bool]:
    return {"ok": True}


@app.post("/v1/orders", status_code=201)
async def place_order(
    purchase: Purchase,
    buyer: Annotated[Customer, Depends(_buyer)],
    order_id: Annotated[UUID, Depends(new_id(_buyer))],
) -> dict[str, str]:
    """Validated and stored; nothing is sealed, and nobody is told."""
    await app.state.pool.execute(
        INSERT, order_id, buyer.subject_id, purchase.gift, purchase.consignee.model_dump_json(),
        "".join(line.model_dump_json() for line in purchase.lines), purchase.payment.model_dump_json(),
    )  # fmt: skip
    return {"order_id": str(order_id), "status": "placed"}


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning", access_log=False, loop="uvloop")
