"""Injection methods, one file each."""
