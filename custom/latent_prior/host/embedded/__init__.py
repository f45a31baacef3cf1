"""Our own host: the parts of threestudio that the shipped configs use, with its type names and config keys."""
