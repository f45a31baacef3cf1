from toys import toy_system, toy_types  # noqa: F401
