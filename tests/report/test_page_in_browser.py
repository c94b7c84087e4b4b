"""The page of a study in a headless Chromium, where one is installed: no errors, no overflow."""

from __future__ import annotations

import html
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from easypruner.report import answer_files
from easypruner.report.study_report import write
from tests.helpers.run_results import save_run
from tests.report.test_study_report import HOSTILE, SEEDS, fill, make_study

CHROMIUM = next(
    filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))), None
)
FRAME = """<!doctype html><iframe id="page" width="{width}" height="800" srcdoc="{page}"></iframe>
<script>onload = () => {{
  const inner = document.getElementById('page').contentDocument
  for (const part of inner.querySelectorAll('details')) part.open = true
  const sizes = [inner.documentElement.scrollWidth, inner.documentElement.clientWidth]
  document.title = [...sizes, inner.querySelectorAll('svg').length].join(' ')
}}</script>"""


def browse(page: Path, folder: Path) -> tuple[str, str]:
    """Open a page; return its content after its scripts, and the messages of the console."""
    assert CHROMIUM is not None
    done = subprocess.run(
        [CHROMIUM, '--headless=new', '--no-sandbox', '--disable-gpu', '--enable-logging=stderr',
         f'--user-data-dir={folder}', '--dump-dom', page.as_uri()],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    console = [line for line in done.stderr.splitlines() if 'CONSOLE' in line]
    return done.stdout, '\n'.join(console)


@pytest.mark.skipif(CHROMIUM is None, reason='needs Chromium')
@pytest.mark.slow
def test_the_page_has_no_errors_and_no_overflow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answer_files, 'draw_pictures', lambda comparison, folder: [])
    long = HOSTILE.replace('\ud800', '') + 'x' * 90
    make_study(tmp_path, {'a': SEEDS, long: [value + 0.5 for value in SEEDS]},
               differences=[long, 'y' * 200])  # fmt: skip
    for run in tmp_path.glob('[01]_*'):
        fill(run, ('baseline', 'x' * 90))
    write(tmp_path)
    dom, console = browse(tmp_path / 'report.html', tmp_path / 'profile')
    assert '</html>' in dom
    assert console == ''
    page = (tmp_path / 'report.html').read_text()
    for width in (390, 1280):
        frame = tmp_path / 'frame.html'
        frame.write_text(FRAME.format(width=width, page=html.escape(page)))
        dom, _ = browse(frame, tmp_path / 'profile')
        found = re.search(r'<title>(\d+) (\d+) (\d+)</title>', dom)
        assert found is not None
        scroll, client, charts = map(int, found.groups())
        assert scroll <= client <= width
        assert charts >= 10


@pytest.mark.skipif(CHROMIUM is None, reason='needs Chromium')
@pytest.mark.slow
def test_the_checks_see_overflow_and_errors(tmp_path: Path) -> None:
    run = save_run(tmp_path, 'a')
    frame = tmp_path / 'frame.html'
    text = FRAME.format(width=390, page=html.escape(f'<pre>{"x" * 900}</pre>'))
    frame.write_text(f'{text}<script>console.error("wrong")</script>')
    dom, console = browse(frame, run / 'profile')
    found = re.search(r'<title>(\d+) (\d+) 0</title>', dom)
    assert found is not None
    assert int(found[1]) > int(found[2])
    assert 'wrong' in console
