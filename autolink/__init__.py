"""Agents of different owners prove who they are and exchange signed messages."""

__version__ = "0.1.0"
