"""What the vault's refusals mean to those who ask it."""

import httpx
import msgspec

from servicekit.core.errors import Fenced, Forbidden, Gone, Invalid, KitError, Taken, TooMany, Unavailable, UnknownKey
from servicekit.core.logs import code, get_log

log = get_log("vault_client")


def error_of(response: httpx.Response) -> KitError:
    """The typed error of a problem document; whatever is not understood fails closed."""
    problem = _problem(response)
    match response.status_code, problem:
        case 403, _:
            return Forbidden("The policy grants this service no such use of the vault. Ask for a grant in the policy.")
        case 404, "unknown_key":
            return UnknownKey()
        case 409, "fenced":
            return Fenced()
        case 409, "holder_behind":
            return Unavailable(
                "This process is too far behind the list of revocations, so the vault leases it no keys. It goes on by"
                " itself once it has reported; if it does not, restart it."
            )
        case 409, "taken":
            return Taken()
        case 410, _:
            return Gone()
        case 422, _:
            return Invalid("The vault could not read this request; services and vault may differ in their versions.")
        case 429, _:
            return TooMany(float(response.headers.get("retry-after", 60)))
    log.error("vault_refused", status=response.status_code, problem=code(problem or "none"))
    return Unavailable("The vault refused this service or failed; its own log and this service's identity key say why.")


def _problem(response: httpx.Response) -> str:
    """The last part of the problem's `type`, such as unknown_key; empty when there is none."""
    try:
        return str(msgspec.json.decode(response.content)["type"]).rpartition("/")[2]
    except (msgspec.MsgspecError, KeyError, TypeError):
        return ""
