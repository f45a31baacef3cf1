"""The prior as the host's guidance and prompt processor; importing a module here registers its type."""
