"""What participants, recipients and the vault have answered, and holds set by hand."""
