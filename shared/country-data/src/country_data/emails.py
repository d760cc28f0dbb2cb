"""E-mail addresses by their syntax. Nobody is asked whether the domain exists: an order does not wait for a name server."""

from typing import Final

from email_validator import EmailNotValidError, validate_email

from country_data.unreadable import Unreadable

_LONGEST: Final = 254  # RFC 5321, 4.5.3.1.3, with the angle brackets


def read_email(text: str) -> str:
    """The address with its domain in small letters and in Unicode (IDNA); what stands before the @ is left as it is.
    Raises `Unreadable`.
    """
    try:
        if len(text) > _LONGEST:
            raise EmailNotValidError
        return validate_email(text.strip(), check_deliverability=False).normalized
    except EmailNotValidError:
        raise Unreadable("email", "Send an e-mail address such as someone@example.org.") from None
