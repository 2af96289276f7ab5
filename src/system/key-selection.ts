// The keys of a rebuild, and what recognizes them.
import { createHash } from "node:crypto"
import type { KeySelection } from "./rebuild-plan.ts"

/** Keys, with what recognizes them. */
export const selectionOf = (keys: Iterable<string>): KeySelection => {
  const sorted = [...new Set(keys)].toSorted()
  return { keys: sorted, hash: createHash("sha256").update(sorted.join("\n")).digest("hex") }
}
