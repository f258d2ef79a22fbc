"""A model of attention on spatial arrays: FuseMax, FLAT and what lies between (MICRO 2024)."""
