"""What carriers answer about shipments, and how far a shipment is."""
