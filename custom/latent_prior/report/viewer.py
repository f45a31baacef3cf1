"""The interactive 3D view of a GLB: trimesh's own viewer, with three.js inside, in our light and with our keys.

trimesh's page keeps `loader`, `camera`, `scene`, `renderer`, `tracklight` and `controls` as globals, and loads the file
once its script has ended; ours, which follows, hooks into that.
"""

from dataclasses import dataclass
from pathlib import Path

from trimesh.viewer.notebook import scene_to_html

MOST_BYTES = 3_000_000  # of a GLB that is shown: as base64, with the viewer's 0.7 MB, it fits in a page of 6 MB
SCRIPT = """
<script>
(() => {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const paper = () => { scene.background.set(dark.matches ? 0x23262b : 0xf3f4f6); if (camera) render(); };
  renderer.outputEncoding = THREE.sRGBEncoding;  // else colours come out too dark
  tracklight.intensity = 0.62;
  scene.add(new THREE.AmbientLight(0xffffff, 0.5));
  dark.addEventListener("change", paper);
  paper();
  const parse = loader.parse;
  loader.parse = (data, path, done, failed) => parse.call(loader, data, path, (gltf) => {
    const ball = new THREE.Box3().setFromObject(gltf.scene).getBoundingSphere(new THREE.Sphere());
    const eye = new THREE.PerspectiveCamera(35, innerWidth / innerHeight, ball.radius / 100, ball.radius * 100);
    const direction = new THREE.Vector3(0.6, 0.45, 1).normalize();
    eye.position.copy(ball.center).addScaledVector(direction, ball.radius / Math.sin(eye.fov * Math.PI / 360));
    gltf.cameras = [eye];
    done(gltf);
    document.body.dataset.loaded = "true";
  }, failed);
  const canvas = renderer.domElement;
  canvas.tabIndex = 0;
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", "3D view of the mesh: drag or use the arrow keys to turn it, + and - to zoom");
  const turn = (axis, angle) => camera.position.sub(controls.target).applyAxisAngle(axis, angle).add(controls.target);
  addEventListener("keydown", (event) => {
    if (!camera) return;
    const side = new THREE.Vector3().crossVectors(camera.up, camera.position.clone().sub(controls.target)).normalize();
    const step = Math.PI / 18;
    if (event.key === "ArrowLeft") turn(camera.up.clone().normalize(), -step);
    else if (event.key === "ArrowRight") turn(camera.up.clone().normalize(), step);
    else if (event.key === "ArrowUp") turn(side, -step);
    else if (event.key === "ArrowDown") turn(side, step);
    else if (event.key === "+" || event.key === "=") turn(side, 0), camera.position.lerp(controls.target, 0.1);
    else if (event.key === "-") camera.position.lerp(controls.target, -0.1);
    else return;
    event.preventDefault();
    camera.lookAt(controls.target);
    render();
  });
})();
</script></body>"""


@dataclass(frozen=True)
class _File:
    """A GLB in the place of trimesh's scene, so that the file itself is shown, not trimesh's reading of it."""

    path: Path
    camera: None = None

    def export(self, file_type: str) -> bytes:
        return self.path.read_bytes()


def page(glb: Path) -> str | None:
    """The viewer with the mesh as a whole HTML page; None if the file has more than MOST_BYTES."""
    if glb.stat().st_size > MOST_BYTES:
        return None
    head, body, tail = scene_to_html(_File(glb)).rpartition("</body>")
    return head + SCRIPT + tail
