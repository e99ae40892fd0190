"""Layouts that a Clip is read from, one file each."""
