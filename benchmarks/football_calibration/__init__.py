"""Laws of football, measured beside the engine of Google Research Football."""
