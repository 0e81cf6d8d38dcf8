"""A page in a headless browser: what sticks out, what has no size, whether text can be read."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")

PROBE = """<script>addEventListener('load', () => {
const name = e => `${e.tagName} ${e.className} ${e.textContent.trim().slice(0, 40)}`;
const light = colour => { const [r, g, b] = colour.match(/[\\d.]+/g).map(v => {
  v /= 255; return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; });
  return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
const style = getComputedStyle(document.body);
const canvas = document.createElement('div'); canvas.style.background = 'Canvas';
document.body.append(canvas);
const pair = [light(style.color), light(getComputedStyle(canvas).backgroundColor)];
canvas.remove();
const pictures = [...document.querySelectorAll('svg, img')].filter(e => e.closest('figure, .clip'));
document.title = JSON.stringify({
  width: innerWidth, scroll: document.documentElement.scrollWidth, pictures: pictures.length,
  wide: [...document.querySelectorAll('body *')].filter(e => !e.closest('.wide') &&
    !e.closest('svg') && e.getBoundingClientRect().right > innerWidth + 1).map(name),
  flat: pictures.filter(e => e.getBoundingClientRect().height < 10).map(name),
  dark: matchMedia('(prefers-color-scheme: dark)').matches,
  contrast: (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05)});
});</script>"""

WAIT = """<script>addEventListener('load', () => setTimeout(() => { document.title =
document.getElementById('f').contentDocument.title; }, 500));</script>"""


def look_at(page: Path, folder: Path, *, width: int, dark: bool) -> dict[str, Any]:
    """What the probe finds on a page of that width (a frame: windows have a least width)."""
    content = page.read_text(encoding="utf-8")
    (folder / "page.html").write_text(content.replace("</body>", f"{PROBE}</body>"))
    style = f"border:0;width:{width}px;height:900px"
    frame = f'<iframe id="f" src="page.html" style="{style}"></iframe>'
    scheme = '<meta name="color-scheme" content="light dark">'
    (folder / "frame.html").write_text(f"<!doctype html>{scheme}<body>{frame}{WAIT}</body>")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
    flags += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
    flags += [f"--user-data-dir={folder / 'profile'}", "--dump-dom", "--virtual-time-budget=5000"]
    flags += [f"--blink-settings=preferredColorScheme={0 if dark else 1}"]
    command = [str(BROWSER), *flags, "--allow-file-access-from-files", f"{folder}/frame.html"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    found = re.search(r"<title>(.*?)</title>", done.stdout)
    assert found is not None, done.stderr[-2000:]
    seen: dict[str, Any] = json.loads(html.unescape(found[1]))
    assert seen.pop("dark") == dark
    return seen
