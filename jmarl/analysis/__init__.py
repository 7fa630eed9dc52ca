"""Statistics over runs, and pictures of them."""
