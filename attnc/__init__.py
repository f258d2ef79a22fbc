"""attnc: write attention as the maths of its paper, get a verified Triton kernel."""
