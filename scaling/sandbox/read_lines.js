// Stands in for the one file that DSPy's runner.js imports from Deno's std site: lines of a reader, as they come.
// The import map puts it in the place of node:process and node:worker_threads, too, which are not for programs.

export async function* readLines(reader) {
  await takeAway();
  const decoder = new TextDecoder();
  const chunk = new Uint8Array(65536);
  let rest = "";
  for (let size; (size = await reader.read(chunk)) !== null;) {
    rest += decoder.decode(chunk.subarray(0, size), { stream: true });
    const lines = rest.split("\n");
    rest = lines.pop();
    yield* lines;
  }
  if (rest) yield rest;
}

// Pyodide has loaded, and no program has yet: from now on no file is read, nothing is stored, and no path names a user.
async function takeAway() {
  await Deno.permissions.revoke({ name: "read" });
  for (const name of ["localStorage", "sessionStorage", "caches", "Worker"]) delete globalThis[name];
  process.getBuiltinModule("node:worker_threads").Worker = undefined; // its globals would be whole again
  delete Object.getPrototypeOf(navigator).gpu; // its drivers keep what they have compiled
  process.argv.splice(0);
  process.execPath = process.title = "deno";
  Deno.execPath = () => "deno";
}
