"""Renders GLB files in Blender, each from the side and from above, lit as an artist would first look at them.

Run inside Blender: blender -b --python launch_scripts/blender.py -- FOLDER a.glb b.glb ...; writes FOLDER/a-0.png, a-1.png.
"""

import builtins
import math
import sys
from pathlib import Path

import numpy

for name in ("bool", "object", "int", "float"):  # Debian's Blender 3.4 uses names that numpy has dropped
    if name not in numpy.__dict__:
        setattr(numpy, name, getattr(builtins, name))

import bpy  # noqa: E402
from mathutils import Vector  # noqa: E402

SIDE, DISTANCE, SAMPLES = 320, 3.4, 24
VIEWS = ((20.0, 35.0), (55.0, 35.0))  # elevation and azimuth from the front, degrees


def aim(thing, place):
    """Put a camera or a light at a place, looking at the middle."""
    thing.location = place
    thing.rotation_euler = (-Vector(place)).to_track_quat("-Z", "Y").to_euler()
    bpy.context.scene.collection.objects.link(thing)
    return thing


def around(elevation, azimuth, distance):
    """A place seen from the middle; Blender's front is -y."""
    e, a = math.radians(elevation), math.radians(azimuth)
    return (distance * math.cos(e) * math.sin(a), -distance * math.cos(e) * math.cos(a), distance * math.sin(e))


def render(file, folder):
    """Both views of one file."""
    bpy.ops.wm.read_factory_settings(use_empty=True)
    bpy.ops.import_scene.gltf(filepath=str(file))
    scene = bpy.context.scene
    sun = bpy.data.lights.new("sun", "SUN")
    sun.energy, sun.angle = 2.5, 0.2
    aim(bpy.data.objects.new("sun", sun), around(50, 75, 5))
    scene.world = bpy.data.worlds.new("world")
    scene.world.use_nodes = True
    sky = scene.world.node_tree.nodes["Background"].inputs
    sky[0].default_value, sky[1].default_value = (1, 1, 1, 1), 0.55
    scene.render.engine, scene.cycles.samples = "CYCLES", SAMPLES
    scene.cycles.use_denoising = False
    scene.render.resolution_x = scene.render.resolution_y = SIDE
    scene.view_settings.view_transform = "Standard"
    for number, (elevation, azimuth) in enumerate(VIEWS):
        lens = bpy.data.cameras.new("camera")
        lens.angle = math.radians(36)
        scene.camera = aim(bpy.data.objects.new("camera", lens), around(elevation, azimuth, DISTANCE))
        scene.render.filepath = str(folder / f"{file.stem}-{number}.png")
        bpy.ops.render.render(write_still=True)


if __name__ == "__main__":
    out, *files = map(Path, sys.argv[sys.argv.index("--") + 1 :])
    for path in files:
        render(path.absolute(), out.absolute())
