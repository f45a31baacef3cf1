from toys import toy_types  # noqa: F401
