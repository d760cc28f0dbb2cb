"""What an erasure means for the gateway: notices to carriers, their answers, and who is told of them."""
