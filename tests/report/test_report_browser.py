"""The page in a real browser: no console error, no request, tables that sort."""

import re
import shutil
import subprocess

import pytest

BROWSER = shutil.which("chromium")
QUIET = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--enable-logging=stderr",
    "--v=0",
)


@pytest.mark.skipif(BROWSER is None, reason="needs chromium on the PATH")
def test_the_page_opens_in_a_browser(page, tmp_path):
    # The page of the study, plus a listener that writes down what was asked for and what went wrong.
    probe = """<script>
    addEventListener("load", () => {
      document.querySelectorAll("table.sortable th button")[1].click();
      const asked = performance.getEntriesByType("resource").map((entry) => entry.name);
      const wide = document.documentElement.scrollWidth - innerWidth;
      document.body.dataset.asked = asked.filter((name) => !name.startsWith("data:")).join(" ");
      document.body.dataset.wide = String(wide);
    });
    </script></body>"""
    copy = tmp_path / "probe.html"
    copy.write_text(page.read_text(encoding="utf-8").replace("</body>", probe), encoding="utf-8")
    command = [BROWSER, *QUIET, f"--user-data-dir={tmp_path / 'profile'}", "--window-size=420,900"]
    found = subprocess.run(
        [*command, "--dump-dom", copy.as_uri()],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    said = [line for line in found.stderr.splitlines() if ":CONSOLE" in line]
    assert said == []
    assert 'data-asked=""' in found.stdout
    assert 'aria-sort="descending"' in found.stdout
    wide = int(re.search(r'data-wide="(-?\d+)"', found.stdout)[1])
    assert wide <= 0, "the page is wider than a narrow window"
