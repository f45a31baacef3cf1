"""Readers that misbehave, for test_in_child.py."""

import os
import signal
import subprocess
import time

import numpy as np
from latent_prior import OptionError


def refuse(path):
    raise OptionError("x", 1, "2")


def fail(path):
    raise KeyError("bug")


def die(path):
    os.kill(os.getpid(), signal.SIGSEGV)


def wait(path):
    time.sleep(60)


def grow(path):
    np.ones(300 << 20, np.uint8)


def start(path):
    subprocess.run(["true"])
