"""The report in a real browser: it needs playwright and a Chromium of this machine."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from xbp.cli import main

playwright = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here")


HEADINGS = {
    "classification": [
        "Curves", "Confusion matrix", "Worst mistakes", "What the first layer looks for",
        "Gradient check", "Computational graph", "Settings",
    ],
    "regression": [
        "Curves", "Targets and outputs", "Largest errors", "Gradient check", "Computational graph",
        "Settings",
    ],
}  # fmt: skip


@pytest.fixture(scope="module", params=HEADINGS)
def report(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(request.param)
    data = []
    if request.param == "regression":
        x = np.random.default_rng(0).normal(size=(60, 3))
        np.savez(folder / "data.npz", x_train=x, t_train=np.stack([x[:, 0], 100 * x[:, 1]], axis=1))
        data = [str(folder / "data.npz"), "--lr=1e-5"]
    hidden = ["--hidden=20"] * 6
    result = CliRunner().invoke(main, ["train", *data, "--steps=60", *hidden, f"--out={folder}"])
    assert result.exit_code == 0, result.stderr
    return folder / "report.html"


@pytest.mark.parametrize("width", [360, 1200])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_report_opens_from_disk(report: Path, width: int, scheme: str) -> None:
    heard: list[str] = []
    with playwright.sync_playwright() as driver:
        # What runs the tests may be root in a container, where Chromium has no sandbox.
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        context = browser.new_context(
            viewport={"width": width, "height": 800}, color_scheme=scheme, offline=True
        )
        page = context.new_page()
        page.on("console", lambda message: heard.append(message.text))
        page.on("pageerror", lambda error: heard.append(str(error)))
        page.on("requestfailed", lambda request: heard.append(request.url))
        page.goto(report.as_uri())
        seen: dict[str, Any] = page.evaluate(
            """() => ({
                width: document.documentElement.scrollWidth,
                unseen: [...document.images].filter(image => !image.naturalWidth).length,
                images: document.images.length,
                paper: getComputedStyle(document.body).backgroundColor,
                headings: [...document.querySelectorAll("h2")].map(heading => heading.innerText),
            })"""
        )
        browser.close()
    assert heard == []
    assert seen["width"] <= width
    headings = next(headings for task, headings in HEADINGS.items() if task in str(report))
    assert seen["images"] > (20 if "Worst mistakes" in headings else 3)
    assert seen["unseen"] == 0
    assert seen["paper"] == ("rgb(18, 18, 18)" if scheme == "dark" else "rgb(255, 255, 255)")
    assert seen["headings"] == headings
