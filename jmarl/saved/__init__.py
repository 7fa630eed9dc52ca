"""Work with saved runs: evaluate them, transfer them to other environments, render them."""
