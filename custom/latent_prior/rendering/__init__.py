"""Registered renderers and materials of radiance fields; importing a module here registers its type."""
