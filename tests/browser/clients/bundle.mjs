/** Bundles code for the page, with the packages that it imports. The package under test stays where it is served. */
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

const options = {
  bundle: true,
  format: "esm",
  platform: "browser",
  target: "es2024",
  logLevel: "warning",
  plugins: [served],
};

/** Bundles the clients; gives the address. */
export async function bundleClients() {
  await build({ ...options, entryPoints: [at("page.ts")], outfile: at("bundles/clients.js") });
  return "/tests/browser/clients/bundles/clients.js";
}

/** Bundles a text of JavaScript; gives the address. */
export async function bundleText(contents, name) {
  await build({ ...options, stdin: { contents, resolveDir: at(".") }, outfile: at(`bundles/${name}.js`) });
  return `/tests/browser/clients/bundles/${name}.js`;
}
