"""The slow proofs, run by their own commands (see the README); plain pytest leaves them out."""
