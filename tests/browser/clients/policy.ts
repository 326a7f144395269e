/** Imported before the clients: zod would compile its parsers at run time, which the page's policy forbids. */
import { z } from "zod";

z.config({ jitless: true });
