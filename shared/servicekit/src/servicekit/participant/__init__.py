"""What makes a service a participant: holdings, commands, exports, revocations."""
