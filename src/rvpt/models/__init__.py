"""Models: a CLIP, the prompts that clean it, and the cleaned model; how they are loaded and saved."""
