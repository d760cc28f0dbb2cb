"""Rights requests: what people ask for, who decides, what is shown."""
