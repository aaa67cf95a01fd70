"""The tools that render: a work folder, a venv and node packages in it, and commands that must succeed."""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
LONGEST_BUILD = 900  # seconds


class CannotRender(Exception):
    """A generator cannot run here; the message says what to install or where to look."""


@dataclass(frozen=True, slots=True)
class Workshop:
    """Where one generator works: its input, its site, and the tools that all of them share."""

    work: Path
    name: str

    @property
    def input(self) -> Path:
        return self.work / "input" / self.name

    @property
    def site(self) -> Path:
        return self.work / "sites" / self.name

    @property
    def is_rendered(self) -> bool:
        """Tell whether the site is there, and younger than the pages and the configuration it is made of."""
        written = max(path.stat().st_mtime for path in HERE.glob("*/**/*") if path.suffix not in {".pyc", ""})
        return self.site.exists() and self.site.stat().st_mtime > written

    def write(self, path: str, text: str) -> Path:
        target = self.input / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
        return target

    def copy(self, path: Path, to: str = ".") -> None:
        target = self.input / to
        target.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            shutil.copytree(path, target, dirs_exist_ok=True)
        else:
            shutil.copy(path, target)

    def run(self, *command: str | Path, cwd: Path | None = None, environment: Mapping[str, str] | None = None) -> bytes:
        """Run a command in the input folder and return its stdout; its talk goes to a log beside the site."""
        log = self.work / "logs" / f"{self.name}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as talk:
            done = subprocess.run(
                [str(part) for part in command],
                cwd=cwd or self.input,
                env={**os.environ, **(environment or {})},
                stdout=subprocess.PIPE,
                stderr=talk,
                timeout=LONGEST_BUILD,
                check=False,
            )
            talk.write(done.stdout)
        if done.returncode:
            raise CannotRender(f"{Path(command[0]).name} ended with {done.returncode}; see {log}")
        return done.stdout

    def venv_tool(self, tool: str) -> Path:
        """Return a program of the venv, which is made on first use from tools.txt."""
        venv = self.work / "venv"
        done = venv / "tools.txt"
        wanted = (HERE / "tools.txt").read_text()
        if not done.exists() or done.read_text() != wanted:
            self.run(sys.executable, "-m", "venv", venv)
            self.run(venv / "bin" / "pip", "install", "--quiet", "--requirement", HERE / "tools.txt")
            done.write_text(wanted)
        return venv / "bin" / tool

    def node_packages(self) -> None:
        """Install the packages of package.json in the input folder, unless they are there."""
        if not (self.input / "node_modules").exists():
            self.run(require("npm", "Node.js"), "install", "--no-audit", "--no-fund")


def require(command: str, package: str) -> str:
    if found := shutil.which(command):
        return found
    raise CannotRender(f"no {command} on PATH: install {package}")
