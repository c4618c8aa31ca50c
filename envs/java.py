"""Where Java is, and what to install where it is not."""

from __future__ import annotations

import os
import shutil

INSTALL = "sudo apt-get install -y openjdk-17-jre-headless"


def find_java() -> str | None:
    """Path of the `java` command: that of `JAVA_HOME` if it is set, else the first on the PATH."""
    home = os.environ.get("JAVA_HOME")
    return shutil.which(os.path.join(home, "bin", "java") if home else "java")


def needs_java() -> str:
    """What to install where there is no Java (a `registration.Requirement`)."""
    return "" if find_java() else f"needs Java: {INSTALL}"
