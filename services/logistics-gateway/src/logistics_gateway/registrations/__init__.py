"""The numbers of consignees with tax and customs authorities, sealed apart from their deliveries."""
