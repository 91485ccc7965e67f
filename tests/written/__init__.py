"""What README.md and docs say of the reference runs, written from their records."""
