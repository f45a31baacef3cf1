"""From fields to mesh files: surface extraction, colours and textures, file formats, the registered exporter."""
