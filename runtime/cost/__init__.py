"""What a kernel costs on a GPU that need not be there: the simulator."""
