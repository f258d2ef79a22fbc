"""Which tiles a mask touches: closed forms, exact classes, the census, shapes of tiles."""
