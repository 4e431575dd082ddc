"""What is wrong with an installation, and what to do about it. Reads only, and works while things are broken."""
