"""Models: a CLIP, prompts, and the cleaned model; loading and saving them."""
