"""The report in a real browser: it opens from a file, sorts, keeps to its page's width and requests nothing."""

import json
import re
import shutil
import subprocess
from html import unescape

import numpy as np
import pytest

from moka_peft.analysis.compare.report import write_reports
from moka_peft.analysis.compare.results import Row, Table

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = (
    "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking --disable-component-update "
    "--disable-sync --disable-dev-shm-usage --virtual-time-budget=10000"
).split()
WIDTHS = (400, 1200)
HOSTILE = "</script><img src=x onerror=\"hacked()\"> & 'x'"
METHODS = (
    "lora",
    "dora",
    "multiple_lora",
    "lora_moe",
    "hydra_lora",
    "uni_modal_lora",
    "uni_mm_lora",
    "uni_mm_lora_gate",
)
METHODS += ("imod", "moka_text_query", "moka_mean", "moka_no_interaction", "moka_shared_a", HOSTILE)

pytestmark = pytest.mark.skipif(BROWSER is None, reason="no browser: chromium, chromium-browser or google-chrome")

LISTEN = """<script>
const problems = [];
addEventListener("error", (event) => problems.push(event.message || String(event.target.src)), true);
for (const name of ["error", "warn"]) console[name] = (...words) => problems.push(words.join(" "));
</script>"""

CHECK = """<script>
addEventListener("load", () => {
  const shown = (table, column) => [...table.tBodies[0].rows].map((row) => row.cells[column].textContent);
  const order = (table) => shown(table, 0);
  const pages = document.scrollingElement;
  const [addressed, pressed] = ["table-1-scores", "table-1-differences"].map((id) => document.getElementById(id));
  const found = { width: innerWidth, problems, addressed: shown(addressed, 1) };
  const head = pressed.tHead.rows[0].cells[1];
  found.plain = order(pressed);
  head.firstElementChild.click();
  found.once = [shown(pressed, 1), head.getAttribute("aria-sort")];
  head.firstElementChild.click();
  found.twice = [shown(pressed, 1), head.getAttribute("aria-sort")];
  pressed.tHead.rows[0].cells[4].firstElementChild.click();
  found.missing = shown(pressed, 4);
  pressed.tHead.rows[0].cells[0].firstElementChild.click();
  found.words = order(pressed);
  document.querySelectorAll("details").forEach((one) => (one.open = true));
  found.rows = Object.fromEntries([...document.querySelectorAll("table")].map((t) => [t.id, t.tBodies[0].rows.length]));
  found.overflow = pages.scrollWidth - pages.clientWidth;
  found.plots = { wide: 0, narrow: 0 };
  found.cut = [];
  for (const svg of document.querySelectorAll("svg")) {
    if (getComputedStyle(svg).display === "none") continue;
    found.plots[svg.classList[0]] += 1;
    const { width, height } = svg.viewBox.baseVal;
    for (const text of svg.querySelectorAll("text")) {
      const box = text.getBBox();
      const right = box.x + box.width, bottom = box.y + box.height;
      if (box.x < -1 || box.y < -1 || right > width + 1 || bottom > height + 1) found.cut.push(text.textContent);
    }
  }
  found.images = document.images.length;
  found.requests = performance.getEntriesByType("resource").map((one) => one.name);
  found.title = document.title;
  parent.postMessage(JSON.stringify(found), "*");
});
</script>"""

FRAMES = """<!DOCTYPE html><pre id="found"></pre><script>
const all = [];
addEventListener("message", (event) => {
  all.push(JSON.parse(event.data));
  document.getElementById("found").textContent = JSON.stringify(all);
});
</script>"""


def make_tables(make):
    generator = np.random.default_rng(0)

    def runs(variant, share, **changes):
        points = (generator.random((3, 30)) < share).astype(float)
        return make(variant, points=points, groups={"Audio": share, "Visual": 1 - share}, **changes)

    rows = [
        Row(name, f"v{place}", None, runs(f"v{place}", 0.5 + 0.03 * place, adapter_parameters=10_000 * (place + 1)))
        for place, name in enumerate(METHODS)
    ]
    single = Row("one seed", "single", None, dict([*runs("single", 0.6).items()][:1]))
    scales = [Row("moka", "moka", value, runs("moka", 0.6 + value / 10)) for value in (0.0, 0.5, 2.0)]
    return [
        Table("equal rank", None, "lora", (*rows, single)),
        Table("adapter.cross_scale", "adapter.cross_scale", "lora", (rows[0], *scales)),
    ]


@pytest.fixture(scope="module")
def page(tmp_path_factory, runs_in):
    folder = tmp_path_factory.mktemp("report")
    runs = folder / "runs"
    runs.mkdir()
    words = {"title": f"All {HOSTILE}", "notes": [HOSTILE], "settings": {"adapter": {"r": 4}, HOSTILE: HOSTILE}}
    write_reports(make_tables(runs_in(runs)), folder, **words)
    return folder / "report.html"


@pytest.fixture(scope="module")
def seen(page, tmp_path_factory):
    """Width -> what a copy of the page found of itself in a frame of that width; one start of the browser for all."""
    text = page.read_text(encoding="utf-8")
    copy = page.with_name("copy.html")
    copy.write_text(text.replace("<head>", "<head>" + LISTEN, 1).replace("</body>", CHECK + "</body>", 1))
    frames = [
        f'<iframe src="copy.html#sort=table-1-scores,1,descending" width={width} height=800></iframe>'
        for width in WIDTHS
    ]
    (start := page.with_name("frames.html")).write_text(FRAMES + "".join(frames))
    profile = tmp_path_factory.mktemp("browser")
    command = [BROWSER, *FLAGS, f"--user-data-dir={profile}", "--dump-dom", start.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    dumped = re.search(r'<pre id="found">(.*?)</pre>', done.stdout, re.DOTALL)
    assert dumped and dumped[1], done.stderr[-2000:]
    return {found["width"]: found for found in json.loads(unescape(dumped[1]))}


@pytest.mark.parametrize("width", WIDTHS)
def test_page_opens_without_a_problem_or_a_request(seen, width):
    assert (seen[width]["problems"], seen[width]["requests"], seen[width]["images"]) == ([], [], 0)
    assert seen[width]["title"] == f"All {HOSTILE}"


@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_reaches_over_the_edge(seen, width):
    assert seen[width]["overflow"] <= 0
    assert seen[width]["cut"] == []


def test_plots_are_those_for_the_width(seen):
    plots = {"wide": 6, "narrow": 0}
    assert seen[1200]["plots"] == plots
    assert seen[400]["plots"] == {"wide": plots["narrow"], "narrow": plots["wide"]}


def test_all_rows_are_there(seen):
    assert seen[1200]["rows"] == {
        "table-1-scores": 15,
        "table-1-differences": 14,
        "table-1-groups": 15,
        "table-1-runs": 14 * 3 + 1,
        "table-2-scores": 4,
        "table-2-differences": 3,
        "table-2-groups": 4,
        "table-2-runs": 12,
    }


def number(text):
    return float(text.split()[0].replace("−", "-"))


def test_address_and_headings_sort(seen):
    found = seen[1200]
    scores = list(map(number, found["addressed"]))
    assert scores == sorted(scores, reverse=True) and len(set(scores)) > 5
    once, twice = (list(map(number, found[name][0])) for name in ("once", "twice"))
    assert once == sorted(once, reverse=True) and twice == sorted(twice)
    assert (found["once"][1], found["twice"][1]) == ("descending", "ascending")
    assert found["missing"][-1] == "–" and "–" not in found["missing"][:-1]
    assert found["words"] == sorted(found["words"], key=str.casefold) != found["plain"]


def test_page_names_no_address_outside(page):
    text = page.read_text(encoding="utf-8")
    assert not re.search(r"""(?:src|href)\s*=\s*["']?\s*(?:https?:)?//|@import|url\(""", text)
    assert HOSTILE not in text and "<img" not in text
