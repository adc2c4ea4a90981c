"""Records as pandas tables, and what follows from them. Knows no torch."""
