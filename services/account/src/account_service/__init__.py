"""Customers: registration, sign-in, their own data, address book, favourites, browsing and notices."""
