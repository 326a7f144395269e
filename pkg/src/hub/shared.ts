/**
 * Files that sites share by their hash, where a browser has that: Cross-Origin Storage, a proposal of the WICG
 * (<https://github.com/WICG/cross-origin-storage>). No browser has it yet; nothing here is needed, and nothing that comes
 * from there is believed: it is hashed like any other bytes.
 */

/** The proposal's interface, as far as it is used. */
interface CrossOriginStorage {
  requestFileHandle(
    hash: { readonly algorithm: string; readonly value: string },
    options?: { readonly create?: boolean; readonly origins?: "*" | readonly string[] },
  ): Promise<FileSystemFileHandle>;
}

function storage(): CrossOriginStorage | undefined {
  const found = (navigator as { crossOriginStorage?: CrossOriginStorage }).crossOriginStorage;
  return typeof found?.requestFileHandle === "function" ? found : undefined;
}

const hashOf = (value: string) => ({ algorithm: "SHA-256", value });

/** The file of that hash; `undefined` where it is not there, or not told to this site. */
export async function findShared(sha256: string): Promise<Blob | undefined> {
  try {
    const handle = await storage()?.requestFileHandle(hashOf(sha256));
    return await handle?.getFile();
  } catch {
    return undefined;
  }
}

/** Stores a file there, unless it is there. Nobody depends on it, so that failing means nothing. */
export async function share(sha256: string, isPublic: boolean, file: () => Promise<Blob>): Promise<void> {
  const shared = storage();
  if (shared === undefined || await findShared(sha256) !== undefined) return;
  try {
    const handle = await shared.requestFileHandle(hashOf(sha256), { create: true, ...(isPublic ? { origins: "*" } : {}) });
    await (await file()).stream().pipeTo(await handle.createWritable());
  } catch {
    // Refused, full, or there already.
  }
}
