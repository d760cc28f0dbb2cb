"""A third party: a storefront service that joined the system with these files and nothing else."""
