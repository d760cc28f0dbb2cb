"""All routes of the product with what the edge knows about them, without a database, a vault or a port."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from fastapi import APIRouter

from account_service.app import SERVICE as ACCOUNT
from account_service.settings import AccountSettings
from deploy.local import keys
from deploy.local.stack import POLICY_DIR
from logistics_gateway.app import SERVICE as GATEWAY
from order_service.app import SERVICE as ORDER
from privacy_service.app import SERVICE as PRIVACY
from servicekit.core.clock import Clock
from servicekit.core.policy import Policy
from servicekit.http.admission import Rule, rules_of
from servicekit.http.limits import CUSTOMER, OPEN, STAFF
from servicekit.kit import Kit
from vault_service import key_expiry_http as aging
from vault_service.epochs import http as epochs
from vault_service.http import make_router
from vault_service.revocations import http as revocations
from vault_service.settings import VaultSettings


def all_rules(folder: Path) -> dict[str, list[Rule]]:
    """By service. `folder` is for keys that are needed and not used."""
    return {service: rules_of(routers) for service, routers in all_routers(folder).items()}


def all_routers(folder: Path) -> dict[str, list[APIRouter]]:
    """By service, as `all_rules`."""
    keys.write_keys(folder / "keys", ["account", "privacy"], [])
    policy = Policy.load((POLICY_DIR / "policy.yaml",))
    found = {"vault": _vault(policy)}
    for service in (ACCOUNT, ORDER, GATEWAY, PRIVACY):
        settings = service.settings()
        if isinstance(settings, AccountSettings):
            settings = AccountSettings(customer_key_file=folder / "keys" / "customer.pem")
        kit = Kit(service.name, settings, Clock(), policy, cast(Any, None), cast(Any, None))
        assert service.router is not None
        found[service.name] = [service.router(kit)]
    return found


def _vault(policy: Policy) -> list[APIRouter]:
    vault: Any = SimpleNamespace(policy=policy, db=None, clock=Clock(), listed=None)
    settings = VaultSettings()
    return [
        make_router(vault),
        revocations.make_router(vault, settings),
        epochs.make_router(vault, settings),
        aging.make_router(vault),
    ]


def line(rule: Rule) -> tuple[str, str, str, str]:
    """Method and path, who may call it, the limits, and the size of a body: the cells of docs/limits.md."""
    who = "anybody" if rule.guard is None else rule.guard.who
    everywhere = {"anybody": OPEN, "service": ()}.get(who, STAFF if who.startswith("staff") else CUSTOMER)
    limits = [f"`{limit.name}` {limit.most:,} in {limit.seconds:,} s" for limit in (*everywhere, *rule.limits)]
    size = "" if rule.method == "GET" else f"{rule.max_body:,}"
    return f"`{rule.method} {rule.path}`", who, "; ".join(limits), size
