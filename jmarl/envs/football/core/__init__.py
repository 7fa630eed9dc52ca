"""Physics of football: functions over arrays whose first axis is the player."""
