"""The demo as a newcomer starts it, and what the tests of the SDKs share."""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

# Nothing of these tests may ask another host: traces, prices, telemetry.
os.environ |= {
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "OPENAI_AGENTS_DISABLE_TRACING": "1",
    "LANGSMITH_TRACING": "false",
    "NO_PROXY": "*",
}

ROOT = Path(__file__).resolve().parents[3]
BINARY = os.environ.get("GATEKEEPER_BIN") or ROOT / os.environ.get("CARGO_TARGET_DIR", "target") / "debug/gatekeeper"

# The demo's licence whose plan has all models and a thousand messages.
KEY = "JSTAR-DEMO-PRO-0001"
UNKNOWN = "NO-SUCH-KEY-0001"
PROMPT = "Where is my parcel?"
SAID = f'You said: "{PROMPT}"'
REFUSED = "This licence key is not valid. Check it for typing errors."
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


class Demo:
    """`gatekeeper demo`, on ports of its own."""

    def __init__(self):
        # Port 0 is none that a gateway may have: those of the demo are taken by what else runs here.
        command = [BINARY, "demo", "--listen", f"127.0.0.1:{free_port()}", "--admin", f"127.0.0.1:{free_port()}"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=sys.stderr, text=True)
        self.url = self.admin = None
        for line in self.process.stdout:
            if found := re.match(r"Apps +(http://\S+)/v1$", line):
                self.url = found[1]
            if found := re.match(r"Dashboard +(http://\S+)/$", line):
                self.admin = found[1]
            if line.startswith("Ctrl-C"):
                break
        assert self.url and self.admin, "the demo did not start"
        self.v1 = f"{self.url}/v1"

    def stop(self):
        self.process.terminate()
        self.process.wait(10)


class Gateway:
    """A gateway with a configuration of the test's; addresses and store are added."""

    def __init__(self, config, env=None):
        self.dir = Path(tempfile.mkdtemp(prefix="gatekeeper-python-"))
        self.url, self.admin = (f"http://127.0.0.1:{free_port()}" for _ in range(2))
        self.v1 = f"{self.url}/v1"
        whole = {
            "server": {"listen": self.url.removeprefix("http://")},
            "admin": {"listen": self.admin.removeprefix("http://")},
            "store": {"kind": "embedded", "path": str(self.dir / "gatekeeper.db")},
        } | config
        file = self.dir / "gatekeeper.yaml"
        file.write_text(json.dumps(whole))  # JSON is YAML
        self.log = open(self.dir / "log", "w")
        command = [BINARY, "run", "-c", file]
        self.process = subprocess.Popen(command, env=os.environ | (env or {}), stdout=self.log, stderr=self.log)
        for _ in range(200):
            if ask(f"{self.admin}/readyz")[0] == 200:
                return
            time.sleep(0.1)
        said = (self.dir / "log").read_text()
        self.stop()
        raise AssertionError(said)

    def stop(self):
        self.process.terminate()
        self.process.wait(10)
        self.log.close()
        shutil.rmtree(self.dir)


def ask(url, body=None, headers=None):
    """Status and text; 0 where nothing answers."""
    request = urllib.request.Request(url, data=body and body.encode(), headers=headers or {})
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code, refused.read().decode()
    except OSError:
        return 0, ""


def free_port():
    import socket

    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]
