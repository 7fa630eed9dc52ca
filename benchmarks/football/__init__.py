"""Speed, memory and a profile of football."""
