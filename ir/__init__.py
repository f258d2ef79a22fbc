"""The compiler's middle: cascades of extended Einsums, what is derived from them, and the plan."""
