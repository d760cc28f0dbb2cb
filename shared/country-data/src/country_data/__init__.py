"""What differs by country, read with the libraries made for it. Pure: no I/O but the libraries' own data files."""

from country_data.unreadable import Unreadable

__all__ = ["Unreadable"]
