"""Living keys in the order of their age: what a retention run looks through for keys that nothing ever named."""
