"""How `rvpt --help` groups the commands."""

CLEANING = "Clean and measure"
ATTACKING = "Attack, to measure defenses"
LISTS = "What there is"
EXPERIMENTS = "Experiments"
