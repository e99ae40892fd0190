"""Trigger inversion: universal changes of images that make a model predict a class, one file per form."""
