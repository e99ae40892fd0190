"""Training: the loop, its checkpoints, the losses, and contrastive training."""
