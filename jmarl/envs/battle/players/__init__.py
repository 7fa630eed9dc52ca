"""Scripted players: policies of the allies that read observations and learn nothing."""
