// Stands in for the one file that DSPy's runner.js imports from Deno's std site: lines of a reader, as they come.
// It runs before any program does, so it also takes away what would let a program leave something on disk.
for (const name of ["localStorage", "sessionStorage", "caches", "Worker"]) delete globalThis[name];

export async function* readLines(reader) {
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
