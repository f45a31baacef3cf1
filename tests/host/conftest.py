from toys import toy_config, toy_system, toy_types  # noqa: F401
