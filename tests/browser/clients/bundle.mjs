/** Bundles the clients for the page. The package itself stays where it is served. */
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const at = (path) => fileURLToPath(new URL(path, import.meta.url));

const served = {
  name: "served",
  setup(build) {
    build.onResolve({ filter: /^headwater(\/|$)/ }, ({ path }) => {
      const entry = path === "headwater" ? "index.js" : `${path.slice("headwater/".length)}/index.js`;
      return { path: `/pkg/dist/${entry}`, external: true };
    });
  },
};

/** Writes `bundle.js`. */
export async function bundle() {
  await build({
    entryPoints: [at("page.ts")],
    outfile: at("bundle.js"),
    bundle: true,
    format: "esm",
    platform: "browser",
    target: "es2024",
    logLevel: "warning",
    plugins: [served],
  });
}
