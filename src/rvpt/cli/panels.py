"""How `rvpt --help` groups the commands."""

CLEANING = "Clean and measure"
MODELS = "Models"
ATTACKING = "Attack, to measure defenses"
LISTS = "Lists"
EXPERIMENTS = "Experiments"
