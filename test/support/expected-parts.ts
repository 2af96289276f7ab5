// Refuses a MILLRACE_EXPECT that names an unknown part, before any test runs: misspelled, it would let a missing part pass.
import { partsOf } from "./parts.ts"

/** Vitest's global set-up. Throws if MILLRACE_EXPECT lists an unknown part. */
export const setup = (): void => void partsOf(process.env["MILLRACE_EXPECT"] ?? "")
