"""Notifications on their way to where they went before."""
