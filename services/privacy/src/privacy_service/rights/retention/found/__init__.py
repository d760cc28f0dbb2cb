"""What retention runs find, until it is given up or counted."""
