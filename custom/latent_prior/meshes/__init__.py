"""From a field to a mesh file: surface extraction, colours and textures, file formats, the registered exporter."""
