"""Mail, one of the ways out of the system: recorded first, then sent; templates with an allow-list of fields."""
