import { createHash } from "node:crypto";
import { readFileSync, readdirSync } from "node:fs";
import { join, relative, sep } from "node:path";
import { defineConfig } from "vite";

// Writes offline.js, the service worker, with the list of all files of the page in it.
function offline() {
  return {
    name: "offline",
    apply: "build",
    generateBundle(_, bundle) {
      const copied = readdirSync("public", { recursive: true, withFileTypes: true })
        .filter((entry) => entry.isFile())
        .map((entry) => relative("public", join(entry.parentPath, entry.name)).replaceAll(sep, "/"));
      const files = ["./", ...Object.keys(bundle), ...copied].sort();
      const digest = createHash("sha256");
      digest.update(readFileSync("index.html"));
      for (const part of Object.values(bundle)) digest.update(part.code ?? part.source);
      for (const file of copied) digest.update(readFileSync(`public/${file}`));
      const source = readFileSync("src/offline.js", "utf8")
        .replace("__FILES__", JSON.stringify(files))
        .replace("__VERSION__", digest.digest("hex").slice(0, 12));
      this.emitFile({ type: "asset", fileName: "offline.js", source });
    },
  };
}

export default defineConfig({
  base: "./", // works in any folder of any host
  plugins: [offline()],
  build: {
    target: "es2022",
    assetsInlineLimit: 0, // the server's policy allows no scripts or data inside the page
    // LiteRT's script looks for its .wasm beside itself, by name.
    rollupOptions: { output: { assetFileNames: "assets/[name][extname]" } },
  },
});
