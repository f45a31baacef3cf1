"""Khronos's glTF validator (the npm package gltf-validator), where it is installed.

`npm install gltf-validator` in a folder, and GLTF_VALIDATOR names the folder.
"""

import json
import os
import shutil
import subprocess
from pathlib import Path

SCRIPT = """
const fs = require("fs");
const validator = require(process.argv[1] + "/node_modules/gltf-validator");
Promise.all(process.argv.slice(2).map(path => validator.validateBytes(new Uint8Array(fs.readFileSync(path)))))
  .then(reports => console.log(JSON.stringify(reports.map(report => report.issues))));
"""


def missing() -> str | None:
    """Why the validator cannot be run; None if it can."""
    folder = os.environ.get("GLTF_VALIDATOR")
    if folder is None:
        return "GLTF_VALIDATOR does not name a folder in which npm has installed gltf-validator"
    if not Path(folder, "node_modules", "gltf-validator").is_dir():
        return f"there is no node_modules/gltf-validator in {folder}, which GLTF_VALIDATOR names"
    return None if shutil.which("node") else "there is no node"


def reports(*paths: Path) -> list[dict]:
    """The validator's issues for each file: numErrors, numWarnings, messages."""
    command = ["node", "-e", SCRIPT, str(Path(os.environ["GLTF_VALIDATOR"]).absolute()), *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)
