"""The I/O toolkit of every service: `Kit` to seal, open and write; `Service` and `main` to run."""
