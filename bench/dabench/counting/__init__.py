"""Operations and bytes of a network."""
