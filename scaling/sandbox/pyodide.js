// Stands in for the npm package that DSPy's runner.js imports: the same Pyodide, from the folder of its process.
import { createRequire } from "node:module";

// Pyodide's own loader expects these where it takes its surroundings for Node.
Object.assign(globalThis, { require: createRequire(import.meta.url), __dirname: import.meta.dirname });
const { loadPyodide } = await import("./pyodide.mjs");
export default { loadPyodide };
