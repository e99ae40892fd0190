"""`python -m rvpt`, which launchers of several processes need."""

from rvpt.cli import main

main()
