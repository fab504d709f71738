"""Nothing that a program leaves anywhere reaches another one: not in a store, not in a file, not by a lock."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from scaling.sandbox import bridge, deno
from scaling.sandbox.programs import Verdict, run_checks

boxed = pytest.mark.skipif(not deno.available(), reason="no Deno with Pyodide here: python -m scaling.sandbox")
CHAOS = bool(os.environ.get("CHAOS"))
slow = pytest.mark.skipif(not CHAOS, reason="a sandbox takes seconds: make chaos")
ROOT = Path(__file__).parent.parent
CHECKS = """
def check(candidate):
    assert candidate(2) == 3
    assert candidate(5) == 6
"""
# Every place where a program might find what another has left. Each gives what is there, and then leaves a mark.
# `whole` runs in a worker of Node's, whose globals are all there.
PLACES = """
(async () => {
  const built = (name) => process.getBuiltinModule("node:" + name);
  const store = (name) => () => {
    const had = globalThis[name].getItem("mark");
    globalThis[name].setItem("mark", "x");
    return had;
  };
  const file = (path) => () => {
    const fs = built("fs");
    let had = null;
    try { had = fs.readFileSync(path, "utf8"); } catch {}
    fs.appendFileSync(path, "x");
    return had;
  };
  const sqlite = (path) => () => {
    const base = new (built("sqlite").DatabaseSync)(path);
    base.exec("create table if not exists marks(x)");
    const had = base.prepare("select count(*) as n from marks").get().n;
    base.exec("insert into marks values (1)");
    return had || null;
  };
  const whole = (code) => () => new Promise((resolve, reject) => {
    const worker = new (built("worker_threads").Worker)(
      `const { parentPort } = process.getBuiltinModule("node:worker_threads");
       (async () => { ${code} })().then((had) => parentPort.postMessage(had), () => parentPort.postMessage(null));`,
      { eval: true });
    worker.on("message", resolve);
    worker.on("error", reject);
  });
  const cached = `
    const kept = await caches.open("kept");
    const had = await kept.match("http://kept/mark");
    await kept.put("http://kept/mark", new Response("x"));
    return had ? await had.text() : null;`;
  const places = {
    localStorage: store("localStorage"),
    sessionStorage: store("sessionStorage"),
    caches: () => new Function("return (async () => {" + cached + "})()")(),
    "localStorage of a worker": whole(
      `const had = localStorage.getItem("mark"); localStorage.setItem("mark", "x"); return had;`),
    "caches of a worker": whole(cached),
    kv: async () => {
      const kept = await Deno.openKv();
      const had = (await kept.get(["mark"])).value;
      await kept.set(["mark"], "x");
      return had;
    },
    "its folder": file("mark"),
    "its runner": () => Deno.readTextFileSync(new URL(Deno.mainModule)),
    "a lock on its runner": () => Deno.openSync(new URL(Deno.mainModule)).lockSync(true),
    "an age of its runner": () => String(Deno.statSync(new URL(Deno.mainModule)).atime),
    "a socket": () => new Promise((resolve, reject) => {
      built("net").connect("\\0mark").on("error", reject).on("connect", () => resolve("x")); }),
    environment: () => JSON.stringify(Deno.env.toObject()),
    title: () => { const had = process.title; process.title = "mark"; return had === "mark" ? had : null; },
  };
  for (const folder of ["/tmp", "/var/tmp", "/dev/shm", "FOLDER"]) {
    places["a file in " + folder] = file(folder + "/mark-of-a-program");
    places["a database in " + folder] = sqlite(folder + "/mark-of-a-program.db");
    places["a backup in " + folder] = () => {
      const base = new (built("sqlite").DatabaseSync)(":memory:");
      base.exec("attach database '" + folder + "/mark-attached.db' as other; create table other.marks(x)");
    };
    places["a copy in " + folder] = () => {
      const base = new (built("sqlite").DatabaseSync)(":memory:");
      base.exec("create table marks(x); vacuum into '" + folder + "/mark-copied.db'");
    };
  }
  const found = [];
  for (const [name, look] of Object.entries(places)) {
    try { if ((await look()) ?? null) found.push(name); } catch {}
  }
  return found.join(", ");
})()
"""
LEAVING = """
# submission {number}
import js
import pathlib
found = await js.eval({places!r})
inside = pathlib.Path("/tmp/mark")  # of Pyodide's own file system
found += ", a file of Pyodide" if inside.exists() else ""
inside.write_text("x")
def add_one(x):
    raise RuntimeError(f"found: {{found or None}}")
"""
# Knows nothing of its task: it stores how far its checks came, and tries the next number where they stopped.
BLIND = """
# submission {number}
import js, json
calls = 0
def stored(kept):
    try: return json.loads(str(kept.getItem("trail")))
    except Exception: return []
def add_one(x):
    global calls
    kept = {store}
    trail = stored(kept)
    while len(trail) <= calls: trail.append(-1)
    if calls == len(trail) - 1: trail[-1] += 1
    kept.setItem("trail", json.dumps(trail))
    calls += 1
    return trail[calls - 1]
"""


def judged(code: str) -> Verdict:
    return run_checks(code, CHECKS, "add_one", seconds=30)


@boxed
def test_no_program_finds_what_another_has_left(tmp_path: Path) -> None:
    places = PLACES.replace("FOLDER", str(tmp_path))
    verdicts = [judged(LEAVING.format(number=number, places=places)) for number in range(2)]
    assert verdicts == 2 * [Verdict(False, "error", "RuntimeError: found: None")]
    assert not list(tmp_path.iterdir())
    assert not list(Path("/tmp").glob("mark-*"))


@boxed
@slow
def test_nor_at_the_same_time_nor_from_another_process(tmp_path: Path) -> None:
    places = PLACES.replace("FOLDER", str(tmp_path))
    clean = Verdict(False, "error", "RuntimeError: found: None")
    with ThreadPoolExecutor(4) as pool:
        verdicts = pool.map(judged, [LEAVING.format(number=number, places=places) for number in range(10, 14)])
        assert list(verdicts) == 4 * [clean]
    code = LEAVING.format(number=20, places=places)
    other = f"from tests.test_sandbox_leaks import judged; print(judged({code!r}).detail)"
    for _ in range(2):
        said = subprocess.run([sys.executable, "-c", other], cwd=ROOT, capture_output=True, text=True, check=True)
        assert said.stdout.strip() == clean.detail


@boxed
@slow
@pytest.mark.parametrize("store", ["js.localStorage", "js.sessionStorage"])
def test_a_program_that_stores_how_far_its_checks_came_never_passes(store: str) -> None:
    for number in range(12):
        verdict = judged(BLIND.format(number=number, store=store))
        assert (verdict.passed, verdict.kind) == (False, "error")  # there is no such store


def test_checks_that_draw_numbers_draw_the_same_ones_each_time() -> None:
    """Else a program could tell how far the checks before its own came."""
    drawn: list[str] = []

    def ask(args: str) -> str:
        drawn.append(args)
        return "value true"

    for _ in range(2):
        bridge.judge(ask, "f", "", "import random\ndef check(f):\n    assert f(random.random())\n", "word")
    assert drawn[0] == drawn[1]
