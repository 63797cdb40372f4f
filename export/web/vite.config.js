import { createHash } from "node:crypto";
import { readFileSync, readdirSync } from "node:fs";
import { defineConfig } from "vite";

// Writes offline.js, the service worker, with the list of all files of the page in it.
function offline() {
  return {
    name: "offline",
    apply: "build",
    generateBundle(_, bundle) {
      const copied = readdirSync("public", { recursive: true, withFileTypes: true })
        .filter((entry) => entry.isFile())
        .map((entry) => `${entry.parentPath}/${entry.name}`.replace(/^public\//, ""));
      const files = ["./", ...Object.keys(bundle), ...copied].sort();
      const digest = createHash("sha256");
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
