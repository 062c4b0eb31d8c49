"""Boards, the C runtime and bridges to robots."""
