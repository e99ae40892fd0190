"""How `rvpt --help` groups the commands."""

CLEANING = "Clean and measure"
ATTACKING = "Attack, to measure defenses"
LISTS = "Lists"
EXPERIMENTS = "Experiments"
