// Prints what files weigh, raw and compressed with brotli at its best, as a JSON list in the order of the arguments.
import { readFileSync } from "node:fs";
import { brotliCompressSync, constants } from "node:zlib";

const params = {
  [constants.BROTLI_PARAM_QUALITY]: 11,
  [constants.BROTLI_PARAM_LGWIN]: constants.BROTLI_MAX_WINDOW_BITS,
};
const weigh = (file) => {
  const bytes = readFileSync(file);
  return { raw: bytes.length, brotli: brotliCompressSync(bytes, { params }).length };
};
console.log(JSON.stringify(process.argv.slice(2).map(weigh)));
