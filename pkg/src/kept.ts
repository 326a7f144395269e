/**
 * A short text of the engine's (what it measured of this device) that is kept from visit to visit, in the browser's caches:
 * workers have them too. Where there are none, or they are full, the next load measures again.
 */
const CACHE = "headwater-kernels";
/** Entries are requests; nobody ever sends this one. */
const ENTRY = "https://headwater.invalid/kernels";

/** Gives the text that is kept, or keeps `text`. */
export async function keep(text?: string): Promise<string | undefined> {
  try {
    const cache = await caches.open(CACHE);
    if (text === undefined) return await (await cache.match(ENTRY))?.text();
    await cache.put(ENTRY, new Response(text));
  } catch {
    // No caches here, or no room.
  }
  return undefined;
}
